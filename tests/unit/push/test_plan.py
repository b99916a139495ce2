"""The rules of a plan as tables: entries in, steps out, no server anywhere."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

import pytest

from towline.knowledge.base import Entry
from towline.layers import profile as profiles
from towline.push.image import Blob
from towline.push.plan import Ask, Destination, Mount, Rules, Send, common, own, steps
from towline.reference import RepositoryName, parse
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.push.plan import Step
    from towline.spec.media_types import Compression

MiB = 1 << 20
DIFF = Digest("sha256:" + "d" * 64)
GZIP = profiles.parse("gzip")
TARGET = "reg.example:5000/team/app"
HERE = Destination(RepositoryName("reg.example:5000", "team/app"), {})


def digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


def layer(size: int = 20 * MiB, stored: str | None = None, *, held: bool = True) -> Blob:
    found = Descriptor(media_types.OCI_LAYER_GZIP, digest(stored), size) if stored else None
    opened = partial(pytest.fail, "a plan opens nothing")
    return Blob(DIFF, found, size, opened, is_layer=True, held=held)


def entry(
    letter: str,
    repository: str = TARGET,
    *,
    compression: Compression = "gzip",
    profile: str | None = GZIP.recorded,
    account: str = "",
    learned: bool = False,
) -> Entry:
    return Entry(
        DIFF, digest(letter), 9, "x", compression, profile, repository, account, learned, 1.0
    )


def plan(
    blob: Blob,
    entries: Sequence[Entry],
    *,
    target: Destination = HERE,
    accounts: dict[Digest, str] | None = None,
    rules: Rules | None = None,
) -> list[str]:
    destination = target._replace(accounts=accounts or {})
    return [shown(step) for step in steps(blob, destination, entries, rules or Rules(GZIP))]


def shown(step: Step) -> str:
    match step:
        case Ask(candidate):
            return f"ask {candidate.digest.hex[0]}"
        case Mount(candidate, origin):
            return f"mount {candidate.digest.hex[0]} {origin.path}"
        case Send():
            return "send"


def test_what_nobody_knows_is_sent() -> None:
    assert plan(layer(), []) == ["send"]


def test_what_the_source_lacks_is_asked_for_and_mounted_and_never_sent() -> None:
    assert plan(layer(held=False), []) == []
    assert plan(layer(stored="a", held=False), []) == ["ask a"]
    elsewhere = [entry("a", f"reg.example:5000/other/{n}") for n in range(9)]
    mounts = plan(layer(size=0, held=False), [entry("b"), *elsewhere])
    assert mounts == ["ask b", *(f"mount a other/{n}" for n in (8, 7, 6, 5))]


def test_what_the_source_lacks_may_be_there_in_any_profile_and_at_one_target_alone() -> None:
    rules = Rules(GZIP, explicit=True, everywhere=frozenset())
    other = entry("a", profile="another")
    assert plan(layer(), [other], rules=rules) == ["send"]
    assert plan(layer(held=False), [other], rules=rules) == ["ask a"]
    zstd = entry("a", compression="zstd")
    assert plan(layer(held=False), [zstd], rules=rules) == []


def test_a_stored_blob_is_asked_for_by_its_own_digest() -> None:
    assert plan(layer(stored="a"), []) == ["ask a", "send"]


def test_a_stored_blob_has_no_other_digest() -> None:
    assert plan(layer(stored="a"), [entry("b"), entry("a")]) == ["ask a", "send"]


def test_the_newest_known_blob_of_the_target_is_asked_for_first() -> None:
    assert plan(layer(), [entry("a"), entry("b")]) == ["ask b", "ask a", "send"]


def test_three_heads_are_the_most() -> None:
    known = [entry(letter) for letter in "abcdef"]
    assert plan(layer(), known) == ["ask f", "ask e", "ask d", "send"]


@pytest.mark.parametrize("size", [0, 1, 100 << 10, 20 * MiB])
def test_small_layers_are_asked_for_too(size: int) -> None:
    assert plan(layer(size), [entry("a")]) == ["ask a", "send"]


def test_a_blob_that_several_have_seen_there_is_asked_for_once() -> None:
    seen = [entry("a", account=name) for name in ("he", "she", "they")]
    ours = dict.fromkeys(map(digest, "abc"), "me")
    known = [entry("c"), entry("b"), *seen]
    assert plan(layer(), known, accounts=ours) == ["ask a", "ask b", "ask c", "send"]


def test_of_a_blob_that_several_have_seen_the_best_of_them_is_believed() -> None:
    seen = [entry("a"), entry("a", account="you", profile=None)]
    ask, *_ = steps(layer(), HERE, seen, Rules(GZIP))
    assert isinstance(ask, Ask)
    assert ask.candidate.profile == GZIP.recorded


def test_nothing_is_assumed_from_another_repository() -> None:
    known = [entry("a", "reg.example:5000/team/base")]
    assert plan(layer(), known) == ["mount a team/base", "send"]


def test_another_registry_is_no_place_to_mount_from() -> None:
    known = [entry("a", "reg.example/team/base"), entry("b", "reg.example:5001/team/base")]
    assert plan(layer(), known) == ["send"]


@pytest.mark.parametrize(
    ("size", "tries"),
    [(0, 1), (100 << 10, 1), ((100 << 10) + 1, 3), (10 * MiB, 3), (10 * MiB + 1, 4)],
)
def test_a_larger_layer_is_worth_more_mounts(size: int, tries: int) -> None:
    known = [entry("a", f"reg.example:5000/base{n}") for n in range(9)]
    assert plan(layer(size), known)[:-1] == [f"mount a base{8 - n}" for n in range(tries)]


def test_names_alike_come_first_among_mounts() -> None:
    known = [entry("a", f"reg.example:5000/{path}") for path in ("team/x", "x/y", "team/app2", "z")]
    assert plan(layer(), known) == [
        "mount a team/app2",
        "mount a team/x",
        "mount a z",
        "mount a x/y",
        "send",
    ]


def test_names_are_alike_by_whole_components() -> None:
    known = [entry("a", f"reg.example:5000/{path}") for path in ("team2/x", "tea/x")]
    assert plan(layer(), known) == ["mount a tea/x", "mount a team2/x", "send"]


def test_the_hubs_names_are_alike_however_they_were_written() -> None:
    names = ("index.docker.io/me/base", "docker.io/library/one", "two")
    known = [entry("a", str(parse(name).repository)) for name in names]
    assert plan(layer(), known, target=Destination(parse("app").repository, {})) == [
        "mount a library/two",
        "mount a library/one",
        "mount a me/base",
        "send",
    ]


def test_where_only_one_mount_is_worth_it_it_is_the_best() -> None:
    known = [entry("a", f"reg.example:5000/{path}") for path in ("team/x", "y", "z")]
    assert plan(layer(1), known) == ["mount a team/x", "send"]


def test_own_credentials_come_before_likeness() -> None:
    known = [
        entry("a", "reg.example:5000/other", account="me"),
        entry("a", "reg.example:5000/team/x", account="you"),
    ]
    found = plan(layer(), known, accounts={digest("a"): "me"})
    assert found == ["mount a other", "mount a team/x", "send"]


def test_what_was_only_learned_comes_after_what_we_made() -> None:
    assert plan(layer(), [entry("a"), entry("b", learned=True)]) == ["ask a", "ask b", "send"]


def test_what_we_saw_comes_first_whatever_somebody_claims_of_his_own() -> None:
    ours = entry("a", compression="none", profile=None, account="me")
    theirs = entry("b", learned=True, account="me")
    accounts = {digest("a"): "me", digest("b"): "me"}
    assert plan(layer(), [ours, theirs], accounts=accounts) == ["ask a", "ask b", "send"]


def test_somebody_elses_word_counts_for_nothing_where_it_is_not_wanted() -> None:
    base = "reg.example:5000/team/base"
    known = [entry("a", learned=True), entry("b", base, learned=True), entry("c", base)]
    assert plan(layer(), known, rules=Rules(GZIP, trust_learned=False)) == [
        "mount c team/base",
        "send",
    ]


def test_of_a_blob_that_we_saw_and_were_told_of_it_is_what_we_saw_that_counts() -> None:
    ask, *_ = steps(layer(), HERE, [entry("a", learned=True), entry("a")], Rules(GZIP))
    assert isinstance(ask, Ask)
    assert not ask.candidate.learned


def test_which_layer_a_stored_blob_is_is_the_sources_word() -> None:
    assert own(layer(stored="a")).learned
    assert not own(layer(stored="d")).learned, "a plain tar is its DiffID"


def test_bytes_that_the_profile_would_make_come_before_others() -> None:
    known = [entry("a"), entry("b", profile=None), entry("c", profile="gzip/9@elsewhere")]
    assert plan(layer(), known) == ["ask a", "ask c", "ask b", "send"]


def test_gzip_comes_before_other_compressions() -> None:
    known = [entry("a"), entry("b", compression="zstd", profile=None)]
    oci = Rules(GZIP, formats=frozenset({"oci"}))
    assert plan(layer(), known, rules=oci) == ["ask a", "ask b", "send"]


def test_zstd_is_no_candidate_where_a_schema_2_manifest_lists_the_layer() -> None:
    known = [entry("b", compression="zstd", profile=None)]
    assert plan(layer(), known, rules=Rules(GZIP, formats=frozenset({"docker"}))) == ["send"]
    mixed = Rules(GZIP, formats=frozenset({"docker", "oci"}))
    assert plan(layer(), known, rules=mixed) == ["send"]


def test_an_explicit_profile_counts_only_blobs_that_it_made() -> None:
    zstd = profiles.parse("zstd:3")
    known = [
        entry("a", compression="zstd", profile=zstd.recorded),
        entry("b"),
        entry("c", compression="zstd", profile=None),
    ]
    rules = Rules(zstd, explicit=True, formats=frozenset({"oci"}))
    assert plan(layer(), known, rules=rules) == ["ask a", "send"]


def test_a_plain_tar_is_as_the_profile_none_makes_it_whoever_made_it() -> None:
    known = [entry("a"), entry("b", compression="none", profile=None)]
    none = profiles.parse("none")
    for rules in (Rules(none, explicit=True), Rules(none, everywhere=frozenset())):
        assert plan(layer(), known, rules=rules) == ["ask b", "send"]


def test_with_several_registries_other_bytes_count_only_where_all_have_them() -> None:
    known = [entry("a"), entry("b", profile=None), entry("c", profile=None)]
    nowhere = Rules(GZIP, everywhere=frozenset())
    one = Rules(GZIP, everywhere=frozenset({digest("b")}))
    assert plan(layer(), known, rules=nowhere) == ["ask a", "send"], "ours are the same anywhere"
    assert plan(layer(), known, rules=one) == ["ask a", "ask b", "send"]


def test_what_all_registries_have_is_what_each_of_them_has() -> None:
    known = [
        [entry("a", "one/x"), entry("b", "one/x"), entry("a", "two:5000/y")],
        [entry("c", "two:5000/x"), entry("c", "one/x/y"), entry("d", "two:5000/x")],
    ]
    assert common(known, frozenset({"one", "two:5000"})) == {digest("a"), digest("c")}
    assert common(known, frozenset({"one"})) == {digest("a"), digest("b"), digest("c")}


def test_a_config_is_treated_like_any_blob() -> None:
    stored = Descriptor(media_types.DOCKER_CONFIG, digest("c"), 2)
    config = Blob(digest("c"), stored, 2, lambda: io.BytesIO(b"{}"), is_layer=False)
    known = [entry("c", "reg.example:5000/team/base", compression="none", profile=None)]
    assert plan(config, known) == ["ask c", "mount c team/base", "send"]
