"""boto3 at the endpoints of AWS themselves, with the proxy of the environment and a key that is none."""

import json
import sys

import boto3
from botocore.config import Config

REGION = json.loads(sys.argv[1])["region"]
session = boto3.Session(aws_access_key_id="unused", aws_secret_access_key="unused", region_name=REGION)
s3 = session.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}))
s3.create_bucket(Bucket="shop", CreateBucketConfiguration={"LocationConstraint": REGION})
s3.put_object(Bucket="shop", Key="a/ü.txt", Body=b"kept")
print(
    json.dumps(
        {
            "read": s3.get_object(Bucket="shop", Key="a/ü.txt")["Body"].read().decode(),
            "keys": [found["Key"] for found in s3.list_objects_v2(Bucket="shop")["Contents"]],
        }
    )
)
