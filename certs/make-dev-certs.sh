#!/usr/bin/env bash
# Makes certificates for development: an authority of your own, a server certificate for localhost
# and a client certificate. Never for production: the authority's key lies unencrypted beside them.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: certs/make-dev-certs.sh [-d DIR] [-c NAME] [SERVER_NAME ...]

  -d DIR         where to put the files (default: certs/dev)
  -c NAME        DNS name in the client certificate (default: sender.example.org)
  SERVER_NAME    further DNS names or IP addresses of the server certificate

The authority is made once and kept, so that you trust it once; the certificates are made anew.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$here/dev
client=sender.example.org
while getopts 'd:c:h' option; do
  case $option in
    d) dir=$OPTARG ;;
    c) client=$OPTARG ;;
    h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done
shift $((OPTIND - 1))
if ! command -v openssl >/dev/null; then
  echo "make-dev-certs.sh: please install openssl" >&2
  exit 2
fi

names=DNS:localhost,IP:127.0.0.1,IP:::1
for name in "$@"; do
  if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then
    names+=,IP:$name
  else
    names+=,DNS:$name
  fi
done

umask 077
mkdir -p "$dir"

# key FILE: a private key, made when it is not there.
key() {
  [[ -s $1 ]] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# leaf NAME SUBJECT SAN USAGE: NAME.key and NAME.pem, signed by the authority.
leaf() {
  local serial
  serial=0x$(openssl rand -hex 16)
  key "$dir/$1.key"
  openssl req -new -key "$dir/$1.key" -subj "/CN=$2" |
    openssl x509 -req -days 397 -sha256 -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
      -set_serial "$serial" -out "$dir/$1.pem" -extfile <(
        printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
          "extendedKeyUsage=$4" "subjectAltName=$3" \
          'subjectKeyIdentifier=hash' 'authorityKeyIdentifier=keyid'
      ) 2>/dev/null
}

key "$dir/ca.key"
if [[ ! -s $dir/ca.pem ]]; then
  openssl req -x509 -new -key "$dir/ca.key" -sha256 -days 3650 -out "$dir/ca.pem" \
    -subj "/CN=Hookward development authority of $(id -un)" \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'
fi
leaf server localhost "$names" serverAuth
leaf client "$client" "DNS:$client" clientAuth
chmod 644 "$dir"/*.pem

cat <<TEXT
$dir/ca.pem      authority: give it to clients (curl --cacert) and to \`client_ca\`
$dir/server.pem  server certificate for $names; key: server.key
$dir/client.pem  client certificate for DNS:$client; key: client.key
TEXT
