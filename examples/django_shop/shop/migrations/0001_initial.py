"""The first tables."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("chat_id", models.BigIntegerField()),
                ("placed_at", models.DateTimeField(auto_now_add=True)),
            ],
        )
    ]
