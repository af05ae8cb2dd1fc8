"""Puts objects of S3 whose keys are no tidy paths, with boto3 and a key that no service knows."""

from aws import client, code
from common import ARGUMENT, finish

s3 = client("s3", is_hashed=True)
finish(done={key: code(lambda: s3.put_object(Bucket="tollgate", Key=key, Body=key.encode())) for key in ARGUMENT["keys"]})
