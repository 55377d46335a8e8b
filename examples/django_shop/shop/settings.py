"""Django's settings. Floodgate reads its own from FLOODGATE_* variables."""

import os
from pathlib import Path

BASE_DIR = Path(os.environ.get("SHOP_HOME", Path(__file__).parent))
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "for-trying-only")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
