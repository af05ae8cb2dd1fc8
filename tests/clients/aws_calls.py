"""Calls AWS services with boto3 and a key that no service knows; the last upload is in signed chunks, which boto3 does not make."""

import hashlib
import http.client
import io
import re

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from common import ARGUMENT, context, finish

REGION = ARGUMENT["region"]
CHUNK = 65536


class Stream(io.RawIOBase):
    """A body whose length is known and which cannot be read twice."""

    def __init__(self, data):
        self.data = io.BytesIO(data)
        self.length = len(data)

    def readable(self):
        return True

    def readinto(self, into):
        return self.data.readinto(into)

    def __len__(self):
        return self.length


def client(service, **options):
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=f"https://{ARGUMENT['authority']}/up",
        aws_access_key_id="AKIAWRONGWRONGWRONG0",
        aws_secret_access_key="a key that no service knows",
        verify=ARGUMENT["ca"],
        config=Config(client_cert=(ARGUMENT["cert"], ARGUMENT["key"]), retries={"total_max_attempts": 1}, **options),
    )


def code(call):
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    except ResponseParserError as error:
        # The gateway's own refusal, where the SDK expects XML.
        return re.search('"reason":"([a-z_]+)"', str(error))[1]
    return "ok"


def chunked(bucket, key, data):
    """STREAMING-AWS4-HMAC-SHA256-PAYLOAD with signatures of nobody."""
    parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)] + [b""]
    body = b"".join(b"%x;chunk-signature=%s\r\n%s\r\n" % (len(part), b"0" * 64, part) for part in parts)
    connection = http.client.HTTPSConnection(ARGUMENT["authority"], context=context())
    scope = f"AKIAWRONGWRONGWRONG0/20260101/{REGION}/s3/aws4_request"
    connection.request("PUT", f"/up/{bucket}/{key}", body, {
        "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={'0' * 64}",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "x-amz-decoded-content-length": str(len(data)),
        "content-encoding": "aws-chunked",
        "content-length": str(len(body)),
    })
    answer = connection.getresponse()
    answer.read()
    return answer.status


data = b"tollgate " * 20000
quiet = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
path = {"addressing_style": "path"}
plain = client("s3", s3=path, **quiet)
done = {}
plain.create_bucket(Bucket="tollgate", CreateBucketConfiguration={"LocationConstraint": REGION})
hashed = client("s3", s3={**path, "payload_signing_enabled": True}, **quiet)
done["hashed"] = code(lambda: hashed.put_object(Bucket="tollgate", Key="hashed/ü +&=~.txt", Body=data))
done["unsigned"] = code(lambda: plain.put_object(Bucket="tollgate", Key="unsigned", Body=data))
trailer = client("s3", s3=path)
done["trailer"] = code(lambda: trailer.put_object(Bucket="tollgate", Key="trailer", Body=Stream(data), ChecksumAlgorithm="CRC32"))
done["chunked"] = chunked("tollgate", "chunked", data)
found = {item["Key"]: item["Size"] for item in plain.list_objects_v2(Bucket="tollgate", Prefix="")["Contents"]}
digests = {key: hashlib.sha256(plain.get_object(Bucket="tollgate", Key=key)["Body"].read()).hexdigest() for key in found}
same = [key for key, digest in digests.items() if digest == hashlib.sha256(data).hexdigest()]
identity = client("sts").get_caller_identity()["Arn"]
model_arn = f"arn:aws:bedrock:{REGION}:123456789012:custom-model/x"
model = code(lambda: client("bedrock").tag_resource(resourceARN=model_arn, tags=[{"key": "a", "value": "b"}]))
foreign = code(lambda: client("iam").list_users())
finish(done=done, same=sorted(same), identity=identity, model=model, foreign=foreign)
