"""Prints every method that aiogram has: what it returns, and its parameters, with whether each is required."""

import json

from aiogram import methods
from aiogram.methods.base import TelegramMethod


def parameters(method: type[TelegramMethod]) -> dict[str, bool]:
    fields = method.model_fields.items()
    return {
        name: field.is_required() for name, field in fields if not (field.json_schema_extra or {}).get("deprecated")
    }


def main() -> None:
    found = [each for name in methods.__all__ if isinstance(each := getattr(methods, name), type)]
    described = {
        method.__api_method__: {"returns": str(method.__returning__), "parameters": parameters(method)}
        for method in found
        if issubclass(method, TelegramMethod) and method is not TelegramMethod
    }
    print(json.dumps(described))


if __name__ == "__main__":
    main()
