"""Make the bucket that artifacts go to, where the store has none of that name yet."""

import os

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    """The address and the keys are read from the environment, as boto3 does."""
    store, name = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]), os.environ["BUCKET"]
    try:
        store.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        store.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
