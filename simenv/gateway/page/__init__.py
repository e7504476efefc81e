"""The web page: static files below /ui, and what the page asks for besides the native API."""

from simenv.gateway.page.views import routes as routes
