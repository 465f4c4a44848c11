"""An S3 server with the bucket `payloads`, until killed. Prints where it listens."""

import time

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://{host}:{port}"
s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")
s3.create_bucket(Bucket="payloads")
s3.create_bucket(Bucket="private")
print(f"listening on {url}", flush=True)
while True:
    time.sleep(3600)
