#!/bin/sh
# A certificate authority for trying things out, and two certificates of it: the gateway's and a caller's.
# What a certificate needs: the gateway's has the DNS names that callers use, a caller's has exactly one URI,
# its SPIFFE id. In a mesh, SPIRE or the mesh's own authority issues both.
set -eu
cd "$(dirname "$0")"
mkdir -p certs
cd certs
umask 077

leaf() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$2" "$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=first call" \
    -addext "subjectAltName=URI:spiffe://prod.acme" -keyout ca.key -out ca.pem 2>/dev/null
leaf gateway "DNS:localhost,URI:spiffe://prod.acme/ns/egress/sa/tollgate" "serverAuth,clientAuth"
leaf web "URI:spiffe://prod.acme/ns/shop/sa/web" "clientAuth"
echo "certs: ca.pem gateway.pem gateway.key web.pem web.key"
