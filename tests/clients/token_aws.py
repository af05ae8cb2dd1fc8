"""boto3, unmodified, told by its own variables alone: the workload's token is Bedrock's bearer token, and a session's token elsewhere."""

import os

from common import ARGUMENT, base_url, finish

with open(ARGUMENT["token"]) as file:
    token = file.read()
os.environ.update(
    AWS_CA_BUNDLE=ARGUMENT["ca"],
    AWS_REGION=ARGUMENT["region"],
    AWS_DEFAULT_REGION=ARGUMENT["region"],
    AWS_MAX_ATTEMPTS="1",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_ENDPOINT_URL_BEDROCK_RUNTIME=base_url("/bedrock"),
    AWS_BEARER_TOKEN_BEDROCK=token,
    AWS_ENDPOINT_URL_STS=base_url("/aws"),
    AWS_ENDPOINT_URL_S3=base_url("/aws"),
    AWS_ACCESS_KEY_ID="AKIAWRONGWRONGWRONG0",
    AWS_SECRET_ACCESS_KEY="unused",
    AWS_SESSION_TOKEN=token,
)

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402

said = {}
try:
    answer = boto3.client("bedrock-runtime").converse(
        modelId="model", messages=[{"role": "user", "content": [{"text": "hello"}]}]
    )
    said["bedrock"] = answer["output"]["message"]["content"][0]["text"]
except ClientError as error:
    said["bedrock"] = error.response["Error"]["Code"]
try:
    said["sts"] = boto3.client("sts").get_caller_identity()["Arn"]
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    s3.create_bucket(Bucket="tollgate", CreateBucketConfiguration={"LocationConstraint": ARGUMENT["region"]})
    s3.put_object(Bucket="tollgate", Key="a.txt", Body=b"hello")
    said["s3"] = s3.get_object(Bucket="tollgate", Key="a.txt")["Body"].read().decode()
except ClientError as error:
    said["sts"] = error.response["Error"]["Code"]
finish(**said)
