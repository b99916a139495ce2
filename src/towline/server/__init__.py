"""An OCI registry for tests, demos and small trusted networks.

Shares `spec` and `errors` with the client and nothing else, so that the two cannot share a
misunderstanding of the specification.
"""

from __future__ import annotations

from towline.server.call import LoggedRequest
from towline.server.limits import Limits
from towline.server.server import Server, tls_context

__all__ = ["Limits", "LoggedRequest", "Server", "tls_context"]
