#!/bin/sh
# Makes the secrets of deploy/compose.yaml once, in deploy/secrets/, and deploy/.env with the user who may read them.
# It never touches secrets that are there: the root secret, the KEK and the passwords belong to the database in the volume.
set -eu
cd "$(dirname "$0")"
umask 077
image_user=10001:10001

if [ -e secrets ]; then
    echo "make_secrets.sh: deploy/secrets is there already, and stays as it is" >&2
    exit 1
fi

random_hex() { # 32 bytes
    od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n'
}

new=$(mktemp -d ./.secrets.XXXXXX)
trap 'rm -rf "$new"' EXIT

echo "1 $(random_hex)" >"$new/root-secret"
echo "1 $(random_hex)" >"$new/kek"

# Postgres's administrator: as the Postgres image reads it, and as the Postgres drivers do.
password=$(random_hex)
echo "$password" >"$new/postgres-password"
echo "*:*:*:postgres:$password" >"$new/postgres-pgpass"

# Each target gets the passwords of its own roles, and `lictor migrate`, which sets them, all.
facts="lictor_facts=$(random_hex)"
for target in license entitlement machine webhook; do
    {
        echo "lictor_$target=$(random_hex)"
        case $target in license | machine) echo "lictor_${target}_worker=$(random_hex)" ;; esac
        echo "$facts"
    } >"$new/roles-$target"
done
sort -u "$new"/roles-* >"$new/roles"

# Compose mounts a file with the owner and the mode it has here. So the containers run as whoever runs this; root, who
# may give files away, gives them to the image's own user.
if [ "$(id -u)" = 0 ]; then
    user=$image_user
    chown -R "$user" "$new"
else
    user=$(id -u):$(id -g)
fi
echo "CONTAINER_USER=$user" >.env
mv "$new" secrets
trap - EXIT
echo "made deploy/secrets and deploy/.env; keep copies of root-secret and kek apart from the database"
