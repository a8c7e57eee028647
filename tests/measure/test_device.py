"""On a CPU nothing is said of a GPU. What is said on one was never run: no machine here has one."""

from mlflow_llmops.measure.device import measure_device


def test_a_network_on_the_cpu_and_a_graph_have_no_gpu(tiny_model, tiny_exported, tiny_texts):
    models = {"torch": tiny_model, "graph": tiny_exported}

    def score(texts):
        raise AssertionError("nothing is scored where there is no GPU")

    assert measure_device(models, tiny_texts.test.texts, dict.fromkeys(models, score)) == {"torch": {}, "graph": {}}
