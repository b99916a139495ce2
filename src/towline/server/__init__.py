"""An OCI registry for tests, demos and small trusted networks.

Shares the specification with the client and nothing else, so that they cannot share a
misunderstanding of it.
"""

from __future__ import annotations

from towline.server.limits import Limits
from towline.server.log import LoggedRequest
from towline.server.server import Server, tls_context

__all__ = ["Limits", "LoggedRequest", "Server", "tls_context"]
