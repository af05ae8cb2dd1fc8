"""What boto3 says of calls that are refused, in every protocol that a service of AWS speaks."""

from aws import client
from botocore.exceptions import ClientError
from common import finish

CALLS = {
    "s3": lambda: client("s3").list_buckets(),
    "s3 head": lambda: client("s3").head_object(Bucket="tollgate", Key="x"),
    "sts": lambda: client("sts").get_caller_identity(),
    "iam": lambda: client("iam").list_users(),
    "ec2": lambda: client("ec2").describe_instances(),
    "route53": lambda: client("route53").list_hosted_zones(),
    "dynamodb": lambda: client("dynamodb").list_tables(),
    "sqs": lambda: client("sqs").list_queues(),
    "bedrock": lambda: client("bedrock").list_foundation_models(),
    "cloudwatch": lambda: client("cloudwatch").list_metrics(),
}


def said(call):
    try:
        call()
    except ClientError as error:
        about = error.response["ResponseMetadata"]
        return {
            "text": str(error),
            "code": error.response["Error"]["Code"],
            "id": about.get("RequestId"),
            "own": about["HTTPHeaders"].get("x-tollgate-request-id"),
            "reason": about["HTTPHeaders"].get("x-tollgate-reason"),
        }
    return {"text": "no error"}


finish(**{name: said(call) for name, call in CALLS.items()})
