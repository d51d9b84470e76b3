#!/bin/bash
# A SLURM of one node on this machine, to try sweeps on. Debian: apt-get install slurm-wlm munge; as root.
#
#     scripts/slurm_here.sh start FOLDER
#     scripts/slurm_here.sh stop FOLDER
#
# No accounting, no cgroups: it runs in a container too. export SLURM_CONF=FOLDER/slurm.conf for other shells.
set -euo pipefail
action=${1:?start or stop}
folder=$(realpath -m "${2:?a folder that nobody else can write to}")
export SLURM_CONF=$folder/slurm.conf

# Not nproc alone: it takes OMP_NUM_THREADS, which is set for runs, for the number of cores.
cores() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc; }

alive() { grep -qs "^State:[[:space:]]*[^Z[:space:]]" "/proc/$1/status"; }

running() {
    pid=$(cat "$folder/$1.pid" 2> /dev/null) && alive "$pid" && [ "$(cat "/proc/$pid/comm")" = "$1" ]
}

# Wait for their ends: a start that still finds one of them there would not start it again.
stop() {
    for name in slurmd slurmctld munged; do
        running "$name" || continue
        kill "$pid"
        for _ in $(seq 100); do
            alive "$pid" || continue 2
            sleep 0.2
        done
        # slurmd does not heed SIGTERM while it looks for its controller.
        kill -KILL "$pid"
    done
}

configure() {
    mkdir -p "$folder"/{state,spool,munge}
    chmod 755 "$folder"
    # munge refuses keys and sockets in folders that others could change.
    chmod 700 "$folder/munge"
    [ -f "$folder/munge.key" ] || { dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none; chmod 400 "$folder/munge.key"; }
    cat > "$SLURM_CONF" <<EOF
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=20
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
KillWait=30
MinJobAge=3600
JobRequeue=1
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$(cores) State=UNKNOWN
PartitionName=here Nodes=$(hostname) Default=YES MaxTime=INFINITE State=UP
EOF
    # slurmd wants a plugin even where no cgroup is used; releases before 23 cannot leave it out.
    case $(slurmd -V) in
        *" 1"* | *" 20"* | *" 21"* | *" 22"*) echo "CgroupPlugin=cgroup/v1" ;;
        *) echo "CgroupPlugin=disabled" ;;
    esac > "$folder/cgroup.conf"
}

start() {
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" > /dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 1; }
    done
    configure
    running munged || munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --seed-file="$folder/munge/seed" --log-file="$folder/munge/log"
    running slurmctld || slurmctld
    running slurmd || slurmd -N "$(hostname)"
    # By the clock: sinfo itself waits for a controller that is not there.
    while ((SECONDS < 60)); do
        if sinfo -h -o %t 2> /dev/null | grep -qE "idle|mix|alloc"; then
            sinfo
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 1
    done
    echo "SLURM did not come up; see $folder/slurmctld.log and $folder/slurmd.log" >&2
    exit 1
}

case $action in start | stop) $action ;; *) echo "start or stop, not $action" >&2; exit 2 ;; esac
