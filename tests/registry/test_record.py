"""Who held what follows from the events alone, and those that were decided on a view that was wrong do not count."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.errors import ConfigError
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.places import look
from mlflow_llmops.registry.record import LONGEST_WHY, Event, append, read, replay

PLACE, STAGING = names.PRODUCTION, names.STAGING


def event(version: str, before: str | None, stage: str = PLACE, what: str = "promote") -> Event:
    return Event(what, stage, version, before, "None", "me", "", "run")  # type: ignore[arg-type]


def test_a_version_may_hold_a_place_several_times():
    record = replay([event("1", None), event("2", "1"), event("1", "2"), event("3", "1")])
    assert [(s.since.version, s.until and s.until.version) for s in record.spells] == [
        ("1", "2"),
        ("2", "1"),
        ("1", "3"),
        ("3", None),
    ]
    assert record.replaced == {"2": "1", "1": "3"}


def test_each_rollback_goes_back_one_more():
    events = [event("1", None), event("2", "1"), event("3", "2")]
    events += [event("2", "3", what="rollback"), event("1", "2", what="rollback")]
    record = replay(events)
    assert record.lines[PLACE] == ("1",)
    assert record.replaced == {"3": "2", "2": "1"}
    assert replay([*events, event("4", "1")]).lines[PLACE] == ("1", "4")


def test_who_goes_on_to_production_leaves_staging():
    record = replay([event("1", None, STAGING), event("1", None)])
    assert (record.holder(STAGING), record.holder(PLACE)) == (None, "1")
    assert record.replaced == {}


def test_an_event_that_would_take_the_champion_away_is_void():
    record = replay([event("1", None), event("1", None, STAGING)])
    assert record.holder(PLACE) == "1"
    assert [each.stage for each in record.void] == [STAGING]


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from([None, "1", "2", "3"]), st.booleans()), max_size=12))
def test_whatever_is_recorded_a_champion_once_there_stays(drawn):
    events = [event(version, before, PLACE if first else STAGING) for version, before, first in drawn]
    had = False
    for end in range(len(events) + 1):
        record = replay(events[:end])
        holders = [held for stage in (PLACE, STAGING) if (held := record.holder(stage))]
        assert len(set(holders)) == len(holders), "one version, one place"
        assert not had or record.holder(PLACE)
        had = had or bool(record.holder(PLACE))
        assert len(record.spells) + len(record.void) == end


def test_events_are_read_in_their_order_though_a_clock_goes_wrong(store, registered):
    registered("m")
    ahead = append("m", event("1", None))
    stored = json.loads(MlflowClient().get_registered_model("m").tags[ahead.key])
    key = ahead.key.replace(ahead.key.split(".")[2][:4], "2999")
    MlflowClient().set_registered_model_tag("m", key, json.dumps({**stored, "at": "2999" + stored["at"][4:]}))
    append("m", replace(event("2", "1"), why="é" * 9999))
    assert [each.version for each in read("m")] == ["1", "1", "2"]
    assert len(read("m")[-1].why) == LONGEST_WHY
    assert max(map(len, MlflowClient().get_registered_model("m").tags.values())) < 5000, "PostgreSQL's bound"


def test_a_tag_of_somebody_else_is_told(store, registered):
    registered("m")
    MlflowClient().set_registered_model_tag("m", names.EVENT_PREFIX + "x", "{}")
    with pytest.raises(ConfigError, match="no event of ours"):
        look("m")


def test_a_rollback_leaves_its_own_trail(store, registered):
    registered("m")
    for version in "123":
        promotion.promote("m", version, PLACE, [], "run")
    assert promotion.rollback("m", PLACE, "it was slow", "run-9") == ("2", "3")
    client = MlflowClient()
    restored, lost = (client.get_model_version("m", number) for number in "23")
    assert (restored.current_stage, lost.current_stage) == (PLACE, names.ARCHIVED)
    assert restored.tags[names.PROMOTED_WHY] == "rolled back from version 3: it was slow"
    assert restored.tags[names.PROMOTED_IN] == "run-9"
    assert names.REPLACED_BY not in restored.tags
    assert lost.tags[names.REPLACED_BY] == "2"
    assert promotion.rollback("m", PLACE, "", "run") == ("1", "2")
    with pytest.raises(ConfigError, match="before version 1 is on record"):
        promotion.rollback("m", PLACE, "", "run")
    with pytest.raises(ConfigError, match="nobody holds Staging"):
        promotion.rollback("m", STAGING, "", "run")
    assert client.get_model_version_by_alias("m", names.CHAMPION).version == 1
    assert promotion.faults("m") == []


def test_a_champion_by_hand_is_recorded_when_it_is_replaced(store, registered):
    registered("m")
    MlflowClient().set_registered_model_alias("m", names.CHAMPION, "1")
    assert promotion.promote("m", "2", PLACE, [], "run") == "1"
    assert [spell.since.what for spell in look("m").record.spells] == ["found", "promote"]
    assert promotion.rollback("m", PLACE, "", "run") == ("1", "2")
