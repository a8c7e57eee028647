"""After a kill at any call, two promotions at once, a hand or a deletion: it is found, it can be mended, and at no
moment is there no champion."""

import json
import signal
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_llmops import names
from mlflow_llmops.cli import main
from mlflow_llmops.measure.gates import Reason
from mlflow_llmops.registry import promotion
from mlflow_llmops.registry.places import look

PLACE = names.PRODUCTION


def champion(name: str) -> str:
    return str(MlflowClient().get_model_version_by_alias(name, names.CHAMPION).version)


def stages(name: str) -> dict[str, str]:
    return {str(v.version): v.current_stage for v in MlflowClient().search_model_versions(f"name = '{name}'")}


def said(name: str) -> str:
    return "; ".join(fault.said for fault in promotion.faults(name))


def promote(name: str, *versions: str, stage: str = PLACE) -> None:
    for version in versions:
        promotion.promote(name, version, stage, [], "run")


MOST_WRITES = 13


def one_model_a_kill(registered, verb: str, most: int = MOST_WRITES) -> None:
    for n in range(1, most + 2):
        registered(f"m{n}", 2)
        promote(f"m{n}", "1")
        promote(f"m{n}", "2", stage=names.STAGING if verb == "promote" else PLACE)


def check_kills(codes: list[str], verb: str) -> None:
    writes = len(codes) - 1
    assert codes == [str(-signal.SIGKILL)] * writes + ["0"]
    assert writes >= 8
    old, new = ("1", "2") if verb == "promote" else ("2", "1")
    for n in range(1, writes + 2):
        name = f"m{n}"
        assert champion(name) in {"1", "2"}
        assert MlflowClient().get_latest_versions(name, [PLACE]), "readers of models:/name/Production"
        assert bool(promotion.faults(name)) == (1 < n <= writes), "what was begun is found"
        promotion.settle(name, "repair")
        assert promotion.faults(name) == []
        holds, lost = (old, new) if n == 1 else (new, old)  # from its record on, the change goes on
        assert champion(name) == look(name).holder(PLACE) == holds
        if n > 1:
            assert stages(name) == {holds: PLACE, lost: names.ARCHIVED}
            assert MlflowClient().get_model_version(name, lost).tags[names.REPLACED_BY] == holds
            assert names.CHALLENGER not in MlflowClient().get_registered_model(name).aliases


@pytest.mark.slow
def test_a_kill_before_any_write_leaves_a_champion_and_is_mended(store, registered, at_work):
    one_model_a_kill(registered, "promote")
    check_kills(at_work("kill", "promote", str(MOST_WRITES + 1)), "promote")


@pytest.mark.slow
def test_of_two_promotions_at_once_one_counts(store, registered, at_work):
    rounds = 4
    for n in range(1, rounds + 1):
        promote(registered(f"r{n}"), "1")
    lines = [json.loads(line) for line in at_work("race", str(rounds))]
    check_races(lines, rounds)


def test_who_took_the_place_before_the_faster_promotion_was_seen_is_as_it_was_before(store, registered):
    """The first event in time may reach the registry last."""
    promote(registered("m"), "1")
    seen, client = look("m"), MlflowClient()
    faster = replace(seen.record.spell(PLACE).since, version="2", before="1")
    promotion.promote("m", "3", PLACE, [], "run", seen)
    assert champion("m") == "3"
    stored = {part: value for part, value in asdict(faster).items() if part != "key"}
    client.set_registered_model_tag("m", f"{faster.key}.late", json.dumps(stored))
    promotion.settle("m", "run")
    assert (champion("m"), promotion.faults("m")) == ("2", [])
    assert stages("m") == {"1": names.ARCHIVED, "2": PLACE, "3": "None"}
    assert client.get_model_version("m", "3").tags == {}


def check_races(lines: list[list], rounds: int) -> None:
    outcomes = {(n, version): outcome for n, version, outcome in lines}
    for n in range(1, rounds + 1):
        name = f"r{n}"
        record = look(name).record
        assert promotion.faults(name) == []
        winner = champion(name)
        assert record.holder(PLACE) == winner in {"2", "3"}
        loser = "3" if winner == "2" else "2"
        assert [event.version for event in record.void] == [loser]
        assert outcomes[n, winner] == "held"
        assert stages(name) == {"1": names.ARCHIVED, winner: PLACE, loser: "None"}


def test_an_alias_that_was_moved_by_hand_goes_back_to_who_passed_the_gate(store, registered):
    promote(registered("m"), "1", "2")
    MlflowClient().set_registered_model_alias("m", names.CHAMPION, "3")
    assert said("m") == "alias champion is at version 3; by the record version 2 holds Production"
    assert champion("m") == "3", "looking changes nothing"
    promotion.settle("m", "run")
    assert champion("m") == "2"
    MlflowClient().delete_registered_model_alias("m", names.CHAMPION)
    assert "alias champion is missing" in said("m")
    promotion.settle("m", "run")
    assert champion("m") == "2"
    assert promotion.faults("m") == []


def test_stages_and_tags_that_were_changed_by_hand_go_back(store, registered):
    promote(registered("m"), "1", "2")
    client = MlflowClient()
    client.transition_model_version_stage("m", "3", PLACE, archive_existing_versions=True)
    client.delete_model_version_tag("m", "2", names.PROMOTED_BY)
    client.set_model_version_tag("m", "2", names.REPLACED_BY, "3")
    client.delete_model_version_tag("m", "1", names.REPLACED_BY)
    client.set_registered_model_alias("m", names.CHALLENGER, "1")
    assert len(promotion.faults("m")) == 5
    promotion.settle("m", "run")
    assert promotion.faults("m") == []
    assert stages("m") == {"1": names.ARCHIVED, "2": PLACE, "3": names.ARCHIVED}
    assert client.get_model_version("m", "2").tags[names.PROMOTED_BY]
    assert names.REPLACED_BY not in client.get_model_version("m", "2").tags
    # nobody was ever promoted to Staging: what hands do there is their business
    assert client.get_registered_model("m").aliases[names.CHALLENGER] == 1


def test_a_champion_that_was_deleted_is_followed_by_the_one_before(store, registered):
    promote(registered("m"), "1", "2", "3")
    client = MlflowClient()
    client.delete_model_version("m", "3")
    with pytest.raises(MlflowException):
        champion("m")
    assert said("m") == "version 3, which held Production, was deleted; version 2 held it before"
    assert promotion.holder("m", PLACE) == "2", "the gate compares with who comes next"
    promotion.settle("m", "run")
    assert (champion("m"), promotion.faults("m")) == ("2", [])
    assert stages("m") == {"1": names.ARCHIVED, "2": PLACE}
    assert look("m").record.spells[-1].since.what == "mend"
    client.delete_model_version("m", "2")
    promotion.rollback("m", PLACE, "no need to wait for the doctor", "run")
    assert champion("m") == "1"
    client.delete_model_version("m", "1")
    assert said("m").endswith("no version that held it before is left: promote another")
    assert promotion.settle("m", "run") == []
    assert promotion.faults("m")


def test_a_challenger_that_was_deleted_leaves_its_place_empty(store, registered):
    promote(registered("m"), "1", "2", stage=names.STAGING)
    MlflowClient().delete_model_version("m", "2")
    assert promotion.faults("m") == []
    assert promotion.holder("m", names.STAGING) is None
    promote("m", "3", stage=names.STAGING)
    assert promotion.faults("m") == []
    assert promotion.holder("m", names.STAGING) == "3"


def test_without_a_record_nothing_is_touched(store, registered):
    registered("m")
    client = MlflowClient()
    client.set_registered_model_alias("m", names.CHAMPION, "1")
    client.transition_model_version_stage("m", "2", PLACE)
    assert promotion.faults("m") == []


def test_a_store_without_stages_is_mended_by_alias_and_tags(store, registered, monkeypatch):
    monkeypatch.delattr(MlflowClient, "transition_model_version_stage")
    promote(registered("m"), "1", "2")
    assert set(stages("m").values()) == {"None"}
    MlflowClient().set_registered_model_alias("m", names.CHAMPION, "3")
    MlflowClient().delete_model_version_tag("m", "2", names.PROMOTED_TO)
    assert len(promotion.faults("m")) == 2
    promotion.settle("m", "run")
    assert (champion("m"), promotion.faults("m")) == ("2", [])
    assert promotion.rollback("m", PLACE, "slow", "run") == ("1", "2")
    assert (champion("m"), promotion.faults("m")) == ("1", [])


@pytest.mark.slow
@pytest.mark.postgres
def test_a_real_server_with_postgresql_behind_it_keeps_all_of_this(server, registered, at_work):
    promote(registered("r1"), "1")
    check_races([json.loads(line) for line in at_work("race", "1")], 1)

    one_model_a_kill(registered, "rollback", 9)
    check_kills(at_work("kill", "rollback", "10"), "rollback")

    # as a user does, with reasons as long as they get
    run = CliRunner().invoke
    reasons = [Reason("quality", "x" * 6000, True)]
    promotion.promote(registered("m"), "1", PLACE, reasons, "run")
    promotion.promote("m", "2", PLACE, reasons, "run")
    done = run(main, ["rollback", "--name", "m", "--why", "zu langsam, né"])
    assert "version 1 of m is in Production again, alias champion; version 2 is archived" in done.output
    MlflowClient().set_registered_model_alias("m", names.CHAMPION, "3")
    sick = run(main, ["doctor", "--name", "m"])
    assert sick.exit_code == 4
    assert "alias champion is at version 3" in sick.output
    mended = run(main, ["doctor", "--name", "m", "--mend"])
    assert (mended.exit_code, champion("m")) == (0, "1")
    assert run(main, ["doctor", "--name", "m"]).exit_code == 0
    told = run(main, ["history", "--name", "m"])
    assert told.exit_code == 0
    assert told.output.count("Production") >= 3
    assert "rollback" in told.output
