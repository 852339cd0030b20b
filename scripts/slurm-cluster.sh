#!/usr/bin/env bash
# A real Slurm cluster on one machine, thrown away afterwards: loopback only, no systemd, no root needed.
#
#   slurm-cluster.sh up | down | status | env | logs [LINES]
#   slurm-cluster.sh kill-node I | start-node I | stop-ctld | start-ctld
#
# Needs (Debian, Ubuntu): slurmctld slurmd slurm-client munge; with accounting also slurmdbd mariadb-server.
# Everything (configuration, keys, state, logs, pid files) lies below SLURM_CLUSTER_DIR.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

DIR=${SLURM_CLUSTER_DIR:-${TMPDIR:-/tmp}/ham-slurm-cluster}
NODES=${SLURM_CLUSTER_NODES:-2}
CPUS=${SLURM_CLUSTER_CPUS:-8}                  # a node; need not be there
MEMORY=${SLURM_CLUSTER_MEMORY:-64000}          # MB a node; need not be there
GPUS=${SLURM_CLUSTER_GPUS:-4}                  # a node; none of them real
PORT=${SLURM_CLUSTER_PORT:-17000}              # slurmctld; +1 slurmdbd, +2 MariaDB, +10+I slurmd of node I
ACCOUNTING=${SLURM_CLUSTER_ACCOUNTING:-none}   # none | slurmdbd
ARRAY_SIZE=${SLURM_CLUSTER_ARRAY_SIZE:-1001}   # MaxArraySize
DEAD_AFTER=${SLURM_CLUSTER_DEAD_AFTER:-10}     # seconds until a silent node counts as dead
KILL_WAIT=${SLURM_CLUSTER_KILL_WAIT:-5}        # seconds from SIGTERM to SIGKILL
GRACE=${SLURM_CLUSTER_GRACE:-0}                # seconds from SIGTERM to the end when partition urgent preempts main
USER_NAME=$(id -un)
HOST=$(hostname -s 2> /dev/null || hostname)
export SLURM_CONF=$DIR/etc/slurm.conf

say() { echo "slurm-cluster: $*" >&2; }

# a zombie still answers `kill -0` where the first process of a container reaps none
alive() {
  [ -s "$1" ] || return 1
  case "$(ps -o stat= -p "$(cat "$1" 2> /dev/null)" 2> /dev/null)" in "" | Z*) return 1 ;; esac
}

wait_for() { # SECONDS WHAT COMMAND...
  local tries=$(($1 * 10)) what=$2
  shift 2
  while ! timeout 5 "$@" > /dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { say "waited in vain: $what"; return 1; }
    sleep 0.1
  done
}

stop() { # PIDFILE: TERM, KILL after five seconds
  local tries=50
  if alive "$1"; then
    kill "$(cat "$1" 2> /dev/null)" 2> /dev/null || true
    while alive "$1" && [ "$tries" -gt 0 ]; do tries=$((tries - 1)); sleep 0.1; done
    ! alive "$1" || kill -9 "$(cat "$1" 2> /dev/null)" 2> /dev/null || true
  fi
  rm -f "$1"
}

resolve_names() { # the machine's own name and the nodes' must resolve: jobs meet at node names
  local name
  for name in "$HOST" $(seq -f 'n%g' 0 $((NODES - 1))); do
    getent hosts "$name" > /dev/null || echo "127.0.0.1 $name" 2> /dev/null >> /etc/hosts ||
      say "put '127.0.0.1 $name' into /etc/hosts"
  done
}

gpu_files() { # Slurm counts as GPUs only character devices; without root, ones that are there anyway (at most six)
  local i made="$DIR/dev/gpu[0-$((GPUS - 1))]"
  for i in $(seq 0 $((GPUS - 1))); do
    [ -c "$DIR/dev/gpu$i" ] || mknod "$DIR/dev/gpu$i" c 1 3 2> /dev/null ||
      made=$(echo /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty | cut -d' ' -f"1-$GPUS" | tr ' ' ,)
  done
  echo "$made"
}

accounting() {
  [ "$ACCOUNTING" = slurmdbd ] || { echo "AccountingStorageType=accounting_storage/none"; return; }
  echo "AccountingStorageType=accounting_storage/slurmdbd"
  echo "AccountingStorageHost=localhost"
  echo "AccountingStoragePort=$((PORT + 1))"
  # clients take munge's socket for slurmdbd from here, not from AuthInfo; without it they retry for ever
  echo "AccountingStoragePass=$DIR/munge/munge.socket"
  echo "AccountingStorageEnforce=associations,limits"
}

write_config() {
  local i
  mkdir -p "$DIR"/{etc,log,run,state,dev,munge}
  chmod 755 "$DIR" "$DIR"/*
  for i in $(seq 0 $((NODES - 1))); do mkdir -p "$DIR/spool/n$i"; done
  resolve_names
  echo "Name=gpu File=$(gpu_files)" > "$DIR/etc/gres.conf"
  printf '#!/bin/sh\necho "$@" >> %s/log/mail.txt\n' "$DIR" > "$DIR/etc/mail"
  chmod 755 "$DIR/etc/mail"
  cat > "$SLURM_CONF" << CONF
ClusterName=ham
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$USER_NAME
SlurmdUser=$USER_NAME
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also the delay before a requeued job may start again; 5 is the least that is accepted
AuthInfo=socket=$DIR/munge/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd-%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
# another cluster in this directory must not give a job's number again
FirstJobId=$((10000 + $(date +%s) % 60000000))
MaxArraySize=$ARRAY_SIZE
JobRequeue=1
MailProg=$DIR/etc/mail
SlurmdTimeout=$DEAD_AFTER
KillWait=$KILL_WAIT
MinJobAge=600
MessageTimeout=10
GresTypes=gpu
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
NodeName=n[0-$((NODES - 1))] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 10))-$((PORT + 9 + NODES))] CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:$GPUS State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=$GRACE
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
$(accounting)
CONF
}

start_munge() {
  ! alive "$DIR/run/munged.pid" || return 0
  [ -s "$DIR/munge/key" ] || (umask 077; head -c 128 /dev/urandom > "$DIR/munge/key")
  rm -f "$DIR/munge/munge.socket" "$DIR/munge/munge.socket.lock"
  munged --key-file="$DIR/munge/key" --socket="$DIR/munge/munge.socket" \
    --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge/seed"
}

start_database() {
  local data="$DIR/mysql" socket="$DIR/run/mysql.sock"
  ! alive "$DIR/run/mariadbd.pid" || return 0
  [ -d "$data/mysql" ] || mariadb-install-db --no-defaults --user="$USER_NAME" --datadir="$data" \
    --auth-root-authentication-method=socket --skip-test-db > "$DIR/log/mariadb-install.log" 2>&1
  setsid mariadbd --no-defaults --user="$USER_NAME" --datadir="$data" --socket="$socket" \
    --pid-file="$DIR/run/mariadbd.pid" --bind-address=127.0.0.1 --port=$((PORT + 2)) \
    --innodb-buffer-pool-size=32M --innodb-lock-wait-timeout=900 --performance-schema=OFF \
    --innodb-flush-log-at-trx-commit=0 > "$DIR/log/mariadbd.log" 2>&1 < /dev/null &
  wait_for 30 MariaDB mariadb-admin --no-defaults --socket="$socket" ping
  mariadb --no-defaults --socket="$socket" -e "
    CREATE DATABASE IF NOT EXISTS slurm_acct_db;
    CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
    CREATE USER IF NOT EXISTS 'slurm'@'localhost' IDENTIFIED BY 'slurm';
    GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
    GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost';"
}

start_accounting() {
  ! alive "$DIR/run/slurmdbd.pid" || return 0
  (umask 077; cat > "$DIR/etc/slurmdbd.conf" << CONF
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/munge.socket
CommunicationParameters=NoInAddrAny
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
SlurmUser=$USER_NAME
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 2))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
  )
  slurmdbd
  wait_for 30 slurmdbd sacctmgr -n list cluster
  sacctmgr -i add cluster ham > /dev/null 2>&1 || true
  sacctmgr -i add account ham > /dev/null 2>&1 || true
  sacctmgr -i add user "$USER_NAME" account=ham > /dev/null 2>&1 || true
}

start_ctld() {
  ! alive "$DIR/run/slurmctld.pid" || return 0
  slurmctld -f "$SLURM_CONF"
  wait_for 20 slurmctld sh -c 'scontrol ping | grep -q "is UP"'
}

start_node() {
  alive "$DIR/run/slurmd-n$1.pid" || slurmd -f "$SLURM_CONF" -N "n$1"
}

descendants() {
  local child
  for child in $(pgrep -P "$1" || true); do descendants "$child"; echo "$child"; done
}

kill_node() { # as a machine dies: slurmd, its slurmstepds and their tasks, all at once
  local pid file pids log="$DIR/log/slurmd-n$1.log"
  pids=$(cat "$DIR/run/slurmd-n$1.pid")
  for pid in $(pgrep -x slurmstepd || true); do # a slurmstepd keeps its node's log open
    for file in /proc/"$pid"/fd/*; do
      [ "$(readlink "$file" 2> /dev/null)" != "$log" ] || { pids="$pids $pid $(descendants "$pid")"; break; }
    done
  done
  # shellcheck disable=SC2086 # several numbers
  kill -9 $pids 2> /dev/null || true
  rm -f "$DIR/run/slurmd-n$1.pid"
}

idle_nodes() { [ "$(sinfo -h -N -t idle,mix,alloc -o %N | sort -u | wc -l)" -ge "$NODES" ]; }

up() {
  local i
  write_config
  start_munge
  [ "$ACCOUNTING" != slurmdbd ] || { start_database; start_accounting; }
  start_ctld
  for i in $(seq 0 $((NODES - 1))); do start_node "$i"; done
  export -f idle_nodes
  export NODES
  wait_for 30 "$NODES idle nodes" bash -c idle_nodes || { sinfo -R; exit 1; }
  say "up; export SLURM_CONF=$SLURM_CONF"
}

down() {
  local file
  timeout 10 scancel --state=PENDING,RUNNING,SUSPENDED -u "$USER_NAME" 2> /dev/null && sleep 1 || true
  # jobs that do not end at once would outlive their cluster
  for file in "$DIR"/run/slurmd-n*.pid; do
    [ ! -s "$file" ] || { file=${file##*-n}; kill_node "${file%.pid}"; }
  done
  for file in "$DIR"/run/slurmd-*.pid "$DIR"/run/{slurmctld,slurmdbd,mariadbd,munged}.pid; do stop "$file"; done
  [ "${1:-}" = --keep ] || rm -rf "$DIR"
}

case ${1:-} in
  up) up ;;
  down) down "${2:-}" ;;
  status) sinfo -N -o '%N %T %C %G %E'; squeue -a ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  logs) tail -n "${2:-40}" "$DIR"/log/*.log ;;
  kill-node) kill_node "$2" ;;
  start-node) start_node "$2" ;;
  stop-ctld) stop "$DIR/run/slurmctld.pid" ;;
  start-ctld) start_ctld ;;
  *) sed -n 2,9p "$0"; exit 2 ;;
esac
