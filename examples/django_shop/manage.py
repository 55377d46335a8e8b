"""A shop that notifies its customers about their orders.

FLOODGATE_RABBITMQ_URL=… python manage.py migrate
gunicorn --workers 8 --chdir examples/django_shop shop.wsgi
"""

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
