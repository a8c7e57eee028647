"""Only names in braces are places; everything else is as it stands."""

from hypothesis import given
from hypothesis import strategies as st

from mlflow_llmops.endpoint.prompt import as_format_string, columns_of, filled

PIECES = ["{", "}", "{{", "a", "{text}", "{other_1}", '{"x": 1}', " ", "{}", "{0}"]
TEMPLATES = st.lists(st.sampled_from(PIECES)).map("".join)


def test_json_needs_no_escapes():
    template = 'Answer as {"label": "..."}: {text} or {text} {other}'
    assert columns_of(template) == ("text", "other")
    assert filled(template, {"text": "{other}"}) == 'Answer as {"label": "..."}: {other} or {other} {other}'


@given(TEMPLATES)
def test_what_langchain_reads_is_what_we_fill_in(template):
    values = {name: f"<{name}>" for name in columns_of(template)}
    assert as_format_string(template).format(**values) == filled(template, values)
