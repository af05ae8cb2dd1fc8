"""Calls AWS services with boto3 and a key that no service knows; the last upload is in signed chunks, which boto3 does not make."""

import hashlib

from aws import REGION, client, code, upload
from common import finish

data = b"tollgate " * 20000
plain = client("s3")
plain.create_bucket(Bucket="tollgate", CreateBucketConfiguration={"LocationConstraint": REGION})
done = upload("tollgate", "ü +&=~.txt", data)
found = {item["Key"]: item["Size"] for item in plain.list_objects_v2(Bucket="tollgate", Prefix="")["Contents"]}
digests = {key: hashlib.sha256(plain.get_object(Bucket="tollgate", Key=key)["Body"].read()).hexdigest() for key in found}
same = [key for key, digest in digests.items() if digest == hashlib.sha256(data).hexdigest()]
identity = client("sts").get_caller_identity()["Arn"]
model_arn = f"arn:aws:bedrock:{REGION}:123456789012:custom-model/x"
model = code(lambda: client("bedrock").tag_resource(resourceARN=model_arn, tags=[{"key": "a", "value": "b"}]))
foreign = code(lambda: client("iam").list_users())
finish(done=done, same=sorted(same), identity=identity, model=model, foreign=foreign)
