"""What a small encoder must be ahead of to be worth its cost: TF-IDF with logistic regression."""

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tqdm.auto import tqdm

from mlflow_llmops.data.texts import Splits


def tfidf_answers(data: Splits) -> list[str]:
    """Its labels for the test split: words and pairs of words, trained on the train split."""
    # scikit-learn's own pattern drops words of one letter, and fails where there are no others
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b|[^\w\s]")
    rival = make_pipeline(words, LogisticRegression(max_iter=1000))
    with tqdm(total=1, desc="training TF-IDF with logistic regression") as bar:
        rival.fit(data.train.texts, data.train.labels)
        bar.update()
    return [str(label) for label in rival.predict(data.test.texts)]
