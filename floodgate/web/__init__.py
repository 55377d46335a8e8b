"""The operator's web pages: what waits and why, and what to do about it.

app         makes the ASGI application: routes, error pages
server      serves it until SIGTERM
viewer      who looks at a page, and what that person may see and do
services    the stores, RabbitMQ and campaigns, each read on threads and bounded in time
live        the live picture, read once for all viewers, as server-sent events
pages       one module a page: reads the request, gathers facts, renders a template
actions     what a viewer can do: a form, a confirmation with the number it touches, the act, an audit entry
access      who may connect: tokens, roles, login, headers

Every page is rendered on the server, readable without JavaScript, and has its whole state in its URL. JavaScript only
brings live parts up to date and draws plots. It finds them by two attributes:

``data-live="/live/overview"``   the URL of server-sent events. Each ``message`` is HTML that replaces the content of
                                 the element. The stream is open only while the tab is visible.
``data-plot="/data/rate?…"``     the URL of JSON: ``{"x": [unix seconds], "series": [{"label": …, "values": […]}]}``.
                                 The element's content, a table of the same values, is for those without JavaScript.

Forms that change something are POSTed and hold the field ``csrf_token``, whose value is ``request.state.csrf_token``.
"""
