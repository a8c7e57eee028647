"""Stage, alias and audit tags move together, and the version before keeps a tag that says by whom it was replaced."""

import getpass

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.flavors import exported_text
from mlflow_llmops.measure.gates import Reason
from mlflow_llmops.registry import promotion, versions

REASONS = [Reason("quality change at least -0.02", "0.001, low end of the interval -0.01", True)]


@pytest.fixture
def two_versions(store, tiny_exported):
    with mlflow.start_run():
        uri = exported_text.log_model(tiny_exported.folder).model_uri
    return [versions.register(uri, "m", {"llmops.method": "export.openvino"}) for _ in range(2)]


def at(version: str):
    return MlflowClient().get_model_version("m", version)


def test_a_version_takes_stage_alias_and_audit_tags(two_versions):
    promotion.promote("m", two_versions[0], names.STAGING, REASONS, "run-1")
    first = at(two_versions[0])
    assert first.current_stage == names.STAGING
    assert promotion.holder("m", names.STAGING) == two_versions[0]
    assert first.tags[names.PROMOTED_IN] == "run-1"
    assert "quality change" in first.tags[names.PROMOTED_WHY]
    assert first.tags[names.PROMOTED_BY] and first.tags[names.PROMOTED_AT]


def test_the_next_one_archives_it(two_versions):
    first, second = two_versions
    assert promotion.promote("m", first, names.PRODUCTION, REASONS, "r") is None
    assert promotion.promote("m", second, names.PRODUCTION, REASONS, "r") == first
    assert at(first).current_stage == names.ARCHIVED
    assert at(first).tags[names.REPLACED_BY] == second
    assert promotion.holder("m", names.PRODUCTION) == second
    assert mlflow.pyfunc.load_model("models:/m@champion").predict(["a text"]).shape == (1, 2)


def test_moving_on_from_staging_gives_its_alias_back(two_versions):
    promotion.promote("m", two_versions[0], names.STAGING, REASONS, "r")
    promotion.promote("m", two_versions[0], names.PRODUCTION, REASONS, "r")
    assert promotion.holder("m", names.STAGING) is None
    assert promotion.holder("m", names.PRODUCTION) == two_versions[0]


def test_promoting_the_holder_again_changes_no_place(two_versions):
    promotion.promote("m", two_versions[0], names.PRODUCTION, REASONS, "r")
    assert promotion.promote("m", two_versions[0], names.PRODUCTION, REASONS, "r") is None
    assert at(two_versions[0]).current_stage == names.PRODUCTION


def test_where_stages_are_gone_alias_and_tag_carry_the_place(two_versions, monkeypatch):
    monkeypatch.delattr(MlflowClient, "transition_model_version_stage")
    promotion.promote("m", two_versions[0], names.PRODUCTION, REASONS, "r")
    assert promotion.holder("m", names.PRODUCTION) == two_versions[0]
    assert at(two_versions[0]).tags[names.PROMOTED_TO] == names.PRODUCTION


def test_unknown_places_versions_and_names_are_told(two_versions):
    with pytest.raises(ConfigError, match="^to=Shelf"):
        promotion.check_stage("Shelf")
    with pytest.raises(ConfigError, match="version=9 of name=m is not registered; it has: 2, 1"):
        versions.get_version("m", "9")
    with pytest.raises(ConfigError, match="no such model"):
        versions.get_version("nobody", "1")
    for bad in ("", "a/b", "a:b", " a"):
        with pytest.raises(ConfigError, match="^register_as="):
            versions.check_name(bad)


def test_the_holder_of_production_is_not_moved_back_to_staging(two_versions):
    promotion.promote("m", two_versions[0], names.PRODUCTION, REASONS, "r")
    with pytest.raises(ConfigError, match="holds Production"):
        promotion.promote("m", two_versions[0], names.STAGING, REASONS, "r")
    assert promotion.holder("m", names.PRODUCTION) == two_versions[0]


@pytest.mark.parametrize(
    ("call", "nth"),
    [
        ("transition_model_version_stage", 1),
        ("delete_registered_model_alias", 1),
        ("set_registered_model_alias", 1),
        ("transition_model_version_stage", 2),
    ],
)
def test_a_death_on_the_way_is_mended_by_running_again(two_versions, monkeypatch, call, nth):
    first, second = two_versions
    promotion.promote("m", first, names.PRODUCTION, REASONS, "r")
    promotion.promote("m", second, names.STAGING, REASONS, "r")
    real, calls = getattr(MlflowClient, call), []

    def dies(*args, **kwargs):
        calls.append(args)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, call, dies)
        with pytest.raises(KeyboardInterrupt):
            promotion.promote("m", second, names.PRODUCTION, REASONS, "r")
    promotion.promote("m", second, names.PRODUCTION, REASONS, "r")
    assert [at(first).current_stage, at(second).current_stage] == [names.ARCHIVED, names.PRODUCTION]
    assert at(first).tags[names.REPLACED_BY] == second
    assert promotion.holder("m", names.PRODUCTION) == second
    assert promotion.holder("m", names.STAGING) is None


def test_every_other_holder_of_the_stage_is_archived_under_a_name_with_quotes(two_versions):
    client = MlflowClient()
    source = at(two_versions[0]).source
    for name in ("it's", 'it\'s "so"'):
        client.create_registered_model(name)
        for stage in (names.PRODUCTION, names.PRODUCTION, None):
            version = client.create_model_version(name, source).version
            if stage:
                client.transition_model_version_stage(name, version, stage)
        assert promotion.promote(name, "3", names.PRODUCTION, REASONS, "r") is None
        found = versions.versions_of(name)
        assert {v.version: v.current_stage for v in found} == {
            3: names.PRODUCTION,
            2: names.ARCHIVED,
            1: names.ARCHIVED,
        }
        assert client.get_model_version(name, "1").tags[names.REPLACED_BY] == "3"
    with pytest.raises(ConfigError, match="version=9 of name=it's is not registered; it has: 3, 2, 1"):
        versions.get_version("it's", "9")


def test_a_user_without_a_name_is_told_by_number(two_versions, monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    promotion.promote("m", two_versions[0], names.STAGING, REASONS, "r")
    assert at(two_versions[0]).tags[names.PROMOTED_BY] == "uid 4711"


@pytest.mark.parametrize(
    ("given", "plain"), [("02", "2"), (" 2 ", "2"), ("0", "a number such as 2"), ("two", "a number"), ("", "a number")]
)
def test_a_version_has_one_spelling(two_versions, given, plain):
    with pytest.raises(ConfigError, match=f"^version={given} is no version number; write {plain}"):
        versions.get_version("m", given)
