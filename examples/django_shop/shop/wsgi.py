"""The application for gunicorn, uWSGI and mod_wsgi. --preload works as well, since the client is fork-safe."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
