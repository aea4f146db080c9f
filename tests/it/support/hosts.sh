#!/bin/bash
# Hosts, each with a systemd of its own, on one cable:
#
#   hosts.sh WORK NAME...     as root; the packages systemd-container, iproute2,
#                             openssh-server, openssh-client and sudo
#
# The hosts run this machine's programs: WORK/usr is laid over its /usr, which
# they cannot write to. Their roots are WORK/NAME; the first has the address
# 192.0.2.1, the second 192.0.2.2, and so on; they know each other by name, and
# root can log in from each to the others. Nothing else can be reached from there.
#
# Prints "NAME PID" for each host that is up, PID being its systemd's. Then it
# reads commands, one a line:
#
#   off NAME      takes its power away: no process there is asked
#   on NAME       boots it again
#   reboot NAME   boots it again once it has ended, as it was told to
#
# When its standard input ends, so also when whoever started it dies, all of it
# is taken down. A network namespace, SWITCH, is what the cables go to: there
# the cable of a host is called to-NAME.
set -euo pipefail

work=$1
hosts=("${@:2}")
name=spiped-test-$$
switch=$name-switch
declare -A nspawn

lay_cables() {
    local host
    ip netns add "$switch"
    ip -netns "$switch" link add switch up type bridge
    for host in "${hosts[@]}"; do
        ip netns add "$name-$host"
        ip -netns "$name-$host" link add host0 type veth peer name "to-$host" netns "$switch"
        ip -netns "$switch" link set "to-$host" master switch up
    done
}

make_root() { # make_root NUMBER NAME
    local root=$work/$2 link number=0 host
    mkdir -p "$root"/{usr,run,tmp,proc,sys,dev,root,var/{lib,log}}
    mkdir -p "$root"/etc/systemd/{system/{multi-user,network-online}.target.wants,network}
    chmod 1777 "$root/tmp"
    for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
    cp -a /etc/{passwd,group,ld.so.cache,pam.d,security,login.defs,sudoers} "$root/etc"
    echo 'root:*:19000::::::' > "$root/etc/shadow"
    cp -L /etc/os-release "$root/etc"
    echo "$2" > "$root/etc/hostname"
    echo '127.0.0.1 localhost' > "$root/etc/hosts"
    for host in "${hosts[@]}"; do
        echo "192.0.2.$((number += 1)) $host" >> "$root/etc/hosts"
    done
    printf '%s: files systemd\n' passwd group > "$root/etc/nsswitch.conf"
    echo 'hosts: files dns' >> "$root/etc/nsswitch.conf"
    # Without an id this would be a first boot, which enables every unit of /usr.
    tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
    for link in console-getty.service getty@.service; do
        ln -s /dev/null "$root/etc/systemd/system/$link"
    done
    ln -s /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    printf '[Match]\nName=host0\n[Network]\nAddress=192.0.2.%d/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' \
        "$1" > "$root/etc/systemd/network/10-host0.network"
    ln -s /usr/lib/systemd/system/systemd-networkd.service \
        "$root/etc/systemd/system/multi-user.target.wants"
    ln -s /usr/lib/systemd/system/systemd-networkd-wait-online.service \
        "$root/etc/systemd/system/network-online.target.wants"
    let_in "$root"
}

# One key for all: each host's own, and root's on each.
let_in() {
    [ -e "$work/ssh-key" ] || ssh-keygen -q -t ed25519 -N '' -f "$work/ssh-key"
    mkdir -pm 0700 "$1/root/.ssh" "$1/etc/ssh"
    cp "$work/ssh-key" "$1/root/.ssh/id_ed25519"
    cp "$work/ssh-key.pub" "$1/root/.ssh/authorized_keys"
    printf '%s\n' 'StrictHostKeyChecking accept-new' 'LogLevel ERROR' > "$1/root/.ssh/config"
    cp "$work/ssh-key" "$1/etc/ssh/ssh_host_ed25519_key"
    echo 'HostKey /etc/ssh/ssh_host_ed25519_key' > "$1/etc/ssh/sshd_config"
    ln -s /usr/lib/systemd/system/ssh.service "$1/etc/systemd/system/multi-user.target.wants"
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
            mkdir -p "$cgroup"
            echo $BASHPID > "$cgroup/cgroup.procs"
        done
        # bpf, or the units' device rules would silently not hold.
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec nsenter --net="/run/netns/$name-$1" \
            systemd-nspawn --quiet --boot \
            --directory="$work/$1" --overlay-ro="/usr:$work/usr:/usr" --machine="$name-$1" \
            --private-users=no --capability=all --system-call-filter='bpf @keyring' \
            --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off \
            --console=pipe
    ) < /dev/null >> "$work/$1.console" 2>&1 &
    nspawn[$1]=$!
}

# The process id of a host's systemd: nspawn's child.
leader() {
    cut -d ' ' -f 1 "/proc/${nspawn[$1]}/task/${nspawn[$1]}/children"
}

wait_until_up() {
    local tries pid
    for tries in {1..600}; do
        if pid=$(leader "$1" 2> /dev/null) && [ -n "$pid" ]; then
            case $(nsenter --target "$pid" --all -- systemctl is-system-running 2> /dev/null) in
                running | degraded)
                    echo "$1 $pid"
                    return
                    ;;
            esac
        fi
        sleep 0.05
    done
    echo "host $1 does not come up:" >&2
    cat "$work/$1.console" >&2
    return 1
}

# Killed alone, nspawn would leave its systemd behind; so the latter goes first.
kill_host() {
    kill -KILL "$(leader "$1")" 2> /dev/null || kill -TERM "${nspawn[$1]}" 2> /dev/null || true
    wait "${nspawn[$1]}" || true
}

take_down() {
    trap '' INT TERM HUP
    set +e
    local host cgroup
    for host in "${!nspawn[@]}"; do
        kill_host "$host"
        for cgroup in $(cgroups "$host"); do
            find "$cgroup" -depth -type d -exec rmdir {} +
        done
    done 2> /dev/null
    for host in "${hosts[@]}"; do ip netns delete "$name-$host"; done 2> /dev/null
    ip netns delete "$switch" 2> /dev/null
    rm -rf --one-file-system "$work"
}
trap take_down EXIT
trap 'exit 1' INT TERM HUP

lay_cables
number=0
for host in "${hosts[@]}"; do make_root $((number += 1)) "$host"; boot "$host"; done
for host in "${hosts[@]}"; do wait_until_up "$host"; done
while read -r command host; do
    case $command in
        off) kill_host "$host" && continue ;;
        reboot) wait "${nspawn[$host]}" || true ;;
    esac
    boot "$host"
    wait_until_up "$host"
done
