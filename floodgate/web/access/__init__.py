"""Decides who may use the web pages, before any page sees the request.

guard         wraps the application: every request passes here, and every response gets the headers
viewers       who is looking, by session, proxy or address, and what that role may do
tokens        finds the name and role of a token
sessions      who is logged in, until when
login         the pages to log in and out
attempts      limits failed logins
origins       which Host and Origin headers are expected
bodies        reads a form, bounded, and hands it on
headers       Content-Security-Policy and its like

Rules:

- A request gets nowhere without a viewer, except to ``/health``, ``/login`` and ``/static``.
- A request that changes something is a POST with a form. It needs a role above ``read``, an Origin of ours and the CSRF
  token of its session. So a route that forgets to ask for a permission is still closed to ``read`` and to other sites.
- Sessions are kept in the memory of the process. Logging out ends them for good, no key has to be kept anywhere, and
  removing a token from the settings ends its sessions with the restart that the change takes. The price: a restart
  logs everybody out.
- The cookie is ``SameSite=Lax``, because a link from an alert or a chat should open its page. ``Strict`` would show
  the login form to someone who is logged in. No GET changes anything, and POSTs are protected by the rule above.
"""
