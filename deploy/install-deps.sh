#!/bin/sh
# Installs what building and testing need beside Go, if it is missing:
#
#   deploy/install-deps.sh postgres   the server binaries of Postgres, 15 or newer
#   deploy/install-deps.sh compiler   a C compiler, for the race detector
#   deploy/install-deps.sh curl       curl, for the test that does what the README says
#   deploy/install-deps.sh faketime   libfaketime, for the test of a database whose clock jumps
#   deploy/install-deps.sh celery     Python and Celery, for the test of deploy/python
#   deploy/install-deps.sh beat       django-celery-beat and -results, psycopg2 and Redis, for the tests of the import
#   deploy/install-deps.sh systemd    systemd-analyze, for the test of deploy/systemd; not as the init
#   deploy/install-deps.sh promtool   Prometheus's promtool, for the test that alerts fire
#
# Nothing is asked and nothing is started: on Debian and Ubuntu the package would
# make a cluster and run it; that is prevented, unless it is installed already.
# Where this script may not install, it prints the command and fails.
set -eu

MIN_POSTGRES=15

# postgres_major prints the newest major version of which initdb and postgres are
# here, or 0. The places are those where internal/localpg looks.
postgres_major() {
	newest=0
	pg_config_dir=$(pg_config --bindir 2>/dev/null || true)
	path_dir=$(dirname "$(command -v postgres 2>/dev/null || echo /nowhere/postgres)")
	for dir in "$path_dir" "${pg_config_dir:-/nowhere}" \
		/usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* /usr/lib/postgresql*/bin \
		/opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
		/home/linuxbrew/.linuxbrew/opt/postgresql*/bin \
		/Applications/Postgres.app/Contents/Versions/*/bin \
		/usr/local/pgsql/bin /usr/bin /usr/local/bin; do
		if [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/postgres" ]; then
			major=$("$dir/postgres" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
			if [ "${major:-0}" -gt "$newest" ]; then newest=$major; fi
		fi
	done
	echo "$newest"
}

# A compiler without the C library's headers builds nothing.
have_compiler() {
	command -v "${CC:-gcc}" >/dev/null 2>&1 &&
		printf '#include <stdlib.h>\n' | "${CC:-gcc}" -E - >/dev/null 2>&1
}

have_faketime() {
	for library in /usr/lib/*/faketime /usr/lib*/faketime /usr/local/lib/faketime; do
		if [ -e "$library/libfaketime.so.1" ]; then return; fi
	done
	return 1
}

# The Python of the system's packages: another one that is first in PATH has not what they
# install.
have_python() {
	for python in /usr/bin/python3 python3; do
		if "$python" -c "import $1" >/dev/null 2>&1; then return; fi
	done
	return 1
}

have() {
	case $1 in
	postgres) [ "$(postgres_major)" -ge "$MIN_POSTGRES" ] ;;
	compiler) have_compiler ;;
	curl) command -v curl >/dev/null 2>&1 ;;
	faketime) have_faketime ;;
	celery) have_python celery ;;
	beat) have_python "celery, django_celery_beat, django_celery_results, psycopg2, redis" && command -v redis-cli >/dev/null 2>&1 ;;
	systemd) command -v systemd-analyze >/dev/null 2>&1 ;;
	promtool) command -v promtool >/dev/null 2>&1 ;;
	esac
}

fail() {
	echo "install-deps: $*" >&2
	exit 1
}

# system prints debian, fedora, alpine, arch, suse, darwin or unknown.
system() {
	if [ "$(uname -s)" = Darwin ]; then
		echo darwin
		return
	fi
	ids=$( (. /etc/os-release && echo "$ID ${ID_LIKE:-}") 2>/dev/null || true)
	for id in $ids; do
		case $id in
		debian | ubuntu) echo debian && return ;;
		fedora | rhel | centos) echo fedora && return ;;
		alpine) echo alpine && return ;;
		arch) echo arch && return ;;
		suse | opensuse*) echo suse && return ;;
		esac
	done
	echo unknown
}

# command_for prints the one line that installs $2 on system $1.
command_for() {
	case $1-$2 in
	debian-postgres) echo "apt-get install -y --no-install-recommends postgresql" ;;
	debian-compiler) echo "apt-get install -y --no-install-recommends gcc libc6-dev" ;;
	debian-curl) echo "apt-get install -y --no-install-recommends curl" ;;
	debian-faketime) echo "apt-get install -y --no-install-recommends libfaketime" ;;
	debian-celery) echo "apt-get install -y --no-install-recommends python3-celery" ;;
	debian-beat) echo "apt-get install -y --no-install-recommends python3-django-celery-beat python3-django-celery-results python3-psycopg2 python3-redis redis-tools" ;;
	debian-systemd) echo "apt-get install -y --no-install-recommends systemd" ;;
	debian-promtool) echo "apt-get install -y --no-install-recommends prometheus" ;;
	fedora-postgres) echo "dnf install -y postgresql-server postgresql-contrib" ;;
	fedora-compiler) echo "dnf install -y gcc glibc-devel" ;;
	fedora-curl) echo "dnf install -y curl" ;;
	fedora-faketime) echo "dnf install -y libfaketime" ;;
	fedora-celery) echo "dnf install -y python3-celery" ;;
	fedora-systemd) echo "dnf install -y systemd" ;;
	fedora-promtool) echo "dnf install -y golang-github-prometheus" ;;
	alpine-postgres) echo "apk add postgresql" ;;
	alpine-compiler) echo "apk add gcc musl-dev" ;;
	alpine-curl) echo "apk add curl" ;;
	alpine-faketime) echo "apk add libfaketime" ;;
	alpine-celery) echo "apk add python3 py3-celery" ;;
	alpine-promtool) echo "apk add prometheus" ;;
	arch-postgres) echo "pacman -S --noconfirm --needed postgresql" ;;
	arch-compiler) echo "pacman -S --noconfirm --needed gcc" ;;
	arch-curl) echo "pacman -S --noconfirm --needed curl" ;;
	arch-faketime) echo "pacman -S --noconfirm --needed libfaketime" ;;
	arch-celery) echo "pacman -S --noconfirm --needed python-celery" ;;
	arch-systemd) echo "pacman -S --noconfirm --needed systemd" ;;
	arch-promtool) echo "pacman -S --noconfirm --needed prometheus" ;;
	suse-postgres) echo "zypper --non-interactive install postgresql-server postgresql-contrib" ;;
	suse-compiler) echo "zypper --non-interactive install gcc glibc-devel" ;;
	suse-curl) echo "zypper --non-interactive install curl" ;;
	suse-faketime) echo "zypper --non-interactive install libfaketime" ;;
	suse-celery) echo "zypper --non-interactive install python3-celery" ;;
	suse-systemd) echo "zypper --non-interactive install systemd" ;;
	darwin-postgres) echo "brew install postgresql@17" ;;
	darwin-compiler) echo "xcode-select --install" ;;
	darwin-curl) echo "brew install curl" ;;
	darwin-promtool) echo "brew install prometheus" ;;
	esac
}

# as_root runs a command as root: directly, or by a sudo that asks no password
# where nobody could answer.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

can_root() {
	[ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }
}

apt_install() {
	# Indexes may be missing (images have none) or old (then the download fails).
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null && return
	as_root apt-get update </dev/null
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null
}

# debian_postgres installs the server without a cluster: postgresql-common comes
# first, is told not to make one while the server is installed, and is then put
# back as Debian ships it.
debian_postgres() {
	conf=/etc/postgresql-common/createcluster.conf
	if dpkg-query -W -f '${Status}' postgresql-common 2>/dev/null | grep -q 'ok installed'; then
		apt_install postgresql
		return
	fi
	apt_install postgresql-common
	as_root cp -p "$conf" "$conf.riverbeat"
	trap 'as_root mv "$conf.riverbeat" "$conf"' EXIT
	echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
	apt_install postgresql
}

# debian_promtool takes the one program out of its package, which would start a
# Prometheus.
debian_promtool() {
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	chmod 755 "$dir"
	(cd "$dir" && apt-get download prometheus </dev/null) ||
		{ as_root apt-get update </dev/null && (cd "$dir" && apt-get download prometheus </dev/null); }
	dpkg-deb -x "$dir"/prometheus_*.deb "$dir/package"
	as_root cp "$dir/package/usr/bin/promtool" /usr/local/bin/promtool
}

install() {
	system=$(system)
	line=$(command_for "$system" "$1")
	if [ -z "$line" ]; then
		case $1 in
		postgres) fail "please install the Postgres server, version $MIN_POSTGRES or newer: https://www.postgresql.org/download/" ;;
		curl) fail "please install curl" ;;
		faketime) fail "no package of libfaketime is known here" ;;
		systemd) fail "there is no systemd here" ;;
		celery) fail "please install Celery, as by: python3 -m pip install celery" ;;
		beat) fail "please install django-celery-beat, as by: python3 -m pip install celery django-celery-beat django-celery-results psycopg2-binary redis, and Redis itself" ;;
		promtool) fail "please install promtool, which comes with Prometheus" ;;
		*) fail "please install a C compiler and the C library's headers" ;;
		esac
	fi
	echo "install-deps: $1 is missing; installing it" >&2
	case $system in
	darwin)
		# Homebrew refuses root, and Apple's installer has a window.
		if [ "$1" = compiler ] || ! command -v brew >/dev/null 2>&1; then
			fail "please run: $line"
		fi
		$line </dev/null
		return
		;;
	esac
	if ! can_root; then
		fail "installing needs root; please run: sudo $line"
	fi
	case $system-$1 in
	debian-postgres) debian_postgres ;;
	debian-compiler) apt_install gcc libc6-dev ;;
	debian-curl) apt_install curl ;;
	debian-faketime) apt_install libfaketime ;;
	debian-systemd) apt_install systemd ;;
	debian-celery) apt_install python3-celery ;;
	debian-beat) apt_install python3-django-celery-beat python3-django-celery-results python3-psycopg2 python3-redis redis-tools ;; # no package that starts a Redis
	debian-promtool) debian_promtool ;;
	*)
		# shellcheck disable=SC2086 # the words of our own table
		as_root $line </dev/null
		;;
	esac
}

if [ $# -eq 0 ]; then set -- postgres compiler curl; fi
for thing in "$@"; do
	case $thing in
	postgres | compiler | curl | faketime | celery | beat | systemd | promtool) ;;
	*) fail "what is $thing? It installs postgres, compiler, curl, faketime, celery, beat, systemd and promtool" ;;
	esac
	have "$thing" && continue
	install "$thing"
	have "$thing" && continue
	case $thing in
	postgres) fail "the newest Postgres of this system is $(postgres_major), and $MIN_POSTGRES or newer is needed: https://www.postgresql.org/download/" ;;
	curl | faketime | celery | beat | systemd | promtool) fail "$thing was installed but is not there" ;;
	*) fail "a C compiler was installed but cannot compile; set CC to another one" ;;
	esac
done
