"""A Flask service that sends by plain HTTP when a form is posted to it. Environment: API_ROOT, BOT_TOKEN, STAFF.

Posts one form to itself, as a browser would, and serves no port.
"""

import os

import requests
from flask import Flask, request

app = Flask(__name__)
API = f"{os.environ['API_ROOT']}/bot{os.environ['BOT_TOKEN']}"


@app.post("/subscribe")
def subscribe():
    told = {"chat_id": os.environ["STAFF"], "text": f"{request.form['name']} subscribed"}
    answer = requests.post(
        f"{API}/sendMessage", data=told, headers={"Idempotency-Key": request.form["name"]}, timeout=70
    )
    return answer.json(), answer.status_code


for _ in range(2):  # the visitor clicks twice
    sent = app.test_client().post("/subscribe", data={"name": "Ada"}).get_json()
    assert sent["result"]["message_id"] == 1
