"""What the settings of all gateways of the benchmark have in common."""


def text(pki, listeners, ledger="sealKeyFile: seal.key", more=""):
    """`tollgate.yaml` for a folder that has the resources, with certificates of `pki`."""
    return f"""
listeners: [{", ".join(listeners)}]
names: [localhost]
identity:
  certificate: {{certFile: {pki}/gateway.crt, keyFile: {pki}/gateway.key}}
  trustDomains: {{prod.acme: {{bundleFile: {pki}/prod.acme.pem}}}}
resources: ./resources
dataDir: ./data
admin: {{address: "127.0.0.1:0", tokenFile: admin.token}}
egress: {{privateRanges: [127.0.0.0/8]}}
ledger: {{{ledger}}}
{more}
"""
