"""An export that is kept: what of it, and when the engine is asked once more."""

from __future__ import annotations

import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from tests.support import scripted_engine
from towline.context import Cancel, Context
from towline.sources.engine import client as engine_client
from towline.sources.engine.kept_export import KeptExport
from towline.sources.files import read_all
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path


class Watched(Cancel):
    """Tells when somebody begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at = threading.Event()

    def check(self) -> None:
        self.looked_at.set()
        super().check()


def test_what_is_not_wanted_is_kept_where_it_is_asked_for_before_it_comes(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", [{"a": bytes(range(256)) * 100}], format="docker")
    diff_id = made.images[0].layers[0].diff_id
    cancel = Watched()
    with scripted_engine.serving(tmp_path) as engine:
        engine.hold(made.path, "app:1")
        engine.before_export = lambda: assert_set(cancel.looked_at)
        context = Context()
        with closing(engine_client.connect(engine.url, "app:1", context, {}, timeout=9)) as client:
            export = KeptExport(
                partial(client.export, ["app:1"]),
                "the export",
                Context(cancel=cancel),
                {"TMPDIR": str(tmp_path)},
                expected=0,
                wanted=None,
                unwanted={diff_id},
            )
            reader = export.open(diff_id)
            assert reader
            assert len(read_all(reader, 1 << 20)) > 25_600
            export.release()
        assert len(engine.exports) == 1


def assert_set(event: threading.Event) -> None:
    assert event.wait(20)
