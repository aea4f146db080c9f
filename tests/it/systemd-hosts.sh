#!/bin/bash
# Two hosts, a and b, each with a systemd of its own, joined by a cable:
#
#   systemd-hosts.sh WORK     as root; the packages systemd-container and iproute2
#
# The hosts run this machine's programs: WORK/usr is laid over its /usr, which
# they cannot write to. Their roots are WORK/a and WORK/b. a has the address
# 192.0.2.1, b has 192.0.2.2, and nothing else can be reached from there.
#
# Prints the process ids of a's and b's systemd, then waits. When its standard
# input ends, so also when whoever started it dies, all of it is taken down.
set -euo pipefail

work=$1
name=spiped-test-$$
declare -A nspawn

make_root() {
    local root=$work/$1 link
    mkdir -p "$root"/{usr,etc/systemd/system,etc/spiped,var,run,tmp,proc,sys,dev,root}
    for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
    cp /etc/{passwd,group,ld.so.cache} "$root/etc"
    cp -L /etc/os-release "$root/etc"
    echo "host-$1" > "$root/etc/hostname"
    echo '127.0.0.1 localhost' > "$root/etc/hosts"
    printf '%s: files systemd\n' passwd group > "$root/etc/nsswitch.conf"
    # Without an id this would be a first boot, which enables every unit of /usr.
    tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
    for link in console-getty.service getty@.service; do
        ln -s /dev/null "$root/etc/systemd/system/$link"
    done
    ln -s /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
}

# The folders in which a host has a cgroup of its own.
cgroups() {
    if [ -d /sys/fs/cgroup/unified ]; then
        echo /sys/fs/cgroup/{systemd,unified}/"$name-$1"
    else
        echo "/sys/fs/cgroup/$name-$1"
    fi
}

boot() {
    (
        for cgroup in $(cgroups "$1"); do
            mkdir "$cgroup"
            echo $BASHPID > "$cgroup/cgroup.procs"
        done
        # bpf, or the units' device rules would silently not hold.
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec systemd-nspawn --quiet --boot \
            --directory="$work/$1" --overlay-ro="/usr:$work/usr:/usr" --machine="$name-$1" \
            --private-network --system-call-filter='bpf @keyring' \
            --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off \
            --console=pipe
    ) < /dev/null > "$work/$1.console" 2>&1 &
    nspawn[$1]=$!
}

# The process id of a host's systemd: nspawn's child.
leader() {
    cut -d ' ' -f 1 "/proc/${nspawn[$1]}/task/${nspawn[$1]}/children"
}

inside() {
    local pid
    pid=$(leader "$1") && nsenter --target "$pid" --all -- "${@:2}"
}

wait_until_up() {
    local tries
    for tries in {1..200}; do
        case $(inside "$1" systemctl is-system-running 2> /dev/null) in
            running | degraded) return ;;
        esac
        sleep 0.05
    done
    echo "host $1 does not come up:" >&2
    cat "$work/$1.console" >&2
    return 1
}

# Killed alone, nspawn would leave its systemd behind; so the latter goes first.
take_down() {
    trap '' INT TERM HUP
    set +e
    local host cgroup
    for host in "${!nspawn[@]}"; do
        kill -KILL "$(leader "$host")" 2> /dev/null || kill -TERM "${nspawn[$host]}"
        wait "${nspawn[$host]}"
        for cgroup in $(cgroups "$host"); do
            find "$cgroup" -depth -type d -exec rmdir {} +
        done
    done 2> /dev/null
    rm -rf --one-file-system "$work"
}
trap take_down EXIT
trap 'exit 1' INT TERM HUP

for host in a b; do make_root $host; boot $host; done
for host in a b; do wait_until_up $host; done
ip link add host0 netns "$(leader a)" type veth peer name host0 netns "$(leader b)"
inside a ip address add 192.0.2.1/24 dev host0
inside b ip address add 192.0.2.2/24 dev host0
for host in a b; do inside $host ip link set host0 up; done
echo "$(leader a) $(leader b)"
cat > /dev/null
