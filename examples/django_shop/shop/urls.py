"""One view: place an order."""

import os
from functools import partial

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.messages import order_placed
from shop.models import Order


@csrf_exempt
@transaction.atomic
def place(request: HttpRequest) -> JsonResponse:
    order = Order.objects.create(chat_id=int(request.POST["chat_id"]))
    # Send only after the commit, so that a transaction that is rolled back sends nothing.
    transaction.on_commit(partial(order_placed, order.id, order.chat_id))
    if request.POST.get("change_my_mind"):
        transaction.set_rollback(True)
    return JsonResponse({"order": order.id, "process": os.getpid()})


urlpatterns = [path("orders", place)]
