package localpg

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// minMajor is the oldest Postgres that Riverbeat works with.
const minMajor = 15

// install is one Postgres on this machine.
type install struct {
	dir          string // where its binaries are
	version      string // as in "15.18"
	major, minor int
}

func (i install) path(binary string) string { return filepath.Join(i.dir, binary) }

// installs are what find found, the newest first.
type installs []install

// places are where packagers put the binaries. Homebrew and Postgres.app are
// taken from their documentation: nobody has tried them yet.
var places = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // PGDG's RPMs
	"/usr/libexec/postgresql*",                           // Alpine
	"/usr/lib/postgresql*/bin",                           // SUSE
	"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew on Apple silicon
	"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",     // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	"/usr/local/pgsql/bin", "/usr/bin", "/usr/local/bin", // from source; others
}

// find lists the complete Postgres servers of this machine: those on the PATH,
// the one that pg_config names, and those where packagers put them; or, if
// search is not nil, those in search only.
func find(ctx context.Context, search []string) installs {
	if search == nil {
		if postgres, err := exec.LookPath("postgres"); err == nil {
			search = append(search, filepath.Dir(postgres))
		}
		if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
			search = append(search, strings.TrimSpace(string(out)))
		}
		for _, pattern := range places {
			dirs, err := filepath.Glob(pattern)
			if err != nil {
				panic(err) // our own patterns
			}
			search = append(search, dirs...)
		}
	}
	var found installs
	for _, dir := range search {
		// The link in a directory of the PATH may stand there without its kin.
		postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			continue
		}
		dir = filepath.Dir(postgres)
		if slices.ContainsFunc(found, func(i install) bool { return i.dir == dir }) {
			continue
		}
		if i, ok := probe(ctx, dir); ok {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b install) int {
		return (b.major-a.major)*1000 + b.minor - a.minor
	})
	return found
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)(?:\.(\d+))?\S*)`)

func probe(ctx context.Context, dir string) (install, bool) {
	for _, binary := range []string{"initdb", "pg_ctl"} {
		if _, err := exec.LookPath(filepath.Join(dir, binary)); err != nil {
			return install{}, false
		}
	}
	//nolint:gosec // a binary where binaries are looked for
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return install{}, false
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return install{}, false
	}
	i := install{dir: dir, version: string(m[1])}
	i.major, _ = strconv.Atoi(string(m[2])) // digits, by the pattern
	i.minor, _ = strconv.Atoi(string(m[3])) // the same, or none in a beta
	return i, true
}

// newest is the one for a new cluster.
func (all installs) newest() (install, error) {
	switch {
	case len(all) == 0:
		return install{}, fmt.Errorf("no Postgres server is installed here; install one: %s (or set DATABASE_URL to use another machine's)",
			installCommand(0))
	case all[0].major < minMajor:
		return install{}, fmt.Errorf("the newest Postgres here is %s (%s), and Riverbeat needs %d or newer; install it, for example from https://www.postgresql.org/download/",
			all[0].version, all[0].dir, minMajor)
	}
	return all[0], nil
}

// forCluster is the one for the existing cluster in path, made by major.
func (all installs) forCluster(path string, major int) (install, error) {
	moveAway := fmt.Sprintf("move the directory away to begin anew: mv '%s' '%s.%d'", path, path, major)
	if major < minMajor {
		return install{}, fmt.Errorf("the data directory %s was made by Postgres %d, and Riverbeat needs %d or newer; bring it to a newer version with pg_upgrade, or %s",
			path, major, minMajor, moveAway)
	}
	for _, i := range all {
		if i.major == major {
			return i, nil
		}
	}
	var have []string
	for _, i := range all {
		have = append(have, i.version)
	}
	return install{}, fmt.Errorf("the data directory %s was made by Postgres %d, which is not installed here (found: %s); install it: %s, or bring the directory to an installed version with pg_upgrade, or %s",
		path, major, cmp.Or(strings.Join(have, ", "), "none"), installCommand(major), moveAway)
}

// installCommand is the one line that installs Postgres on this system; major 0
// is the one that the system prefers.
func installCommand(major int) string {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		release, _ = os.ReadFile("/usr/lib/os-release") // none at all: some other system
	}
	return installCommandFor(runtime.GOOS, osReleaseIDs(release), major, os.Geteuid() == 0)
}

func installCommandFor(goos string, ids []string, major int, root bool) string {
	version := ""
	if major > 0 {
		version = strconv.Itoa(major)
	}
	dashed := strings.TrimSuffix("postgresql-"+version, "-")
	if goos == "darwin" {
		return "brew install postgresql@" + cmp.Or(version, "17")
	}
	sudo := "sudo "
	if root {
		sudo = ""
	}
	for _, id := range ids {
		switch id {
		case "debian", "ubuntu":
			return sudo + "apt-get install -y " + dashed
		case "fedora", "rhel", "centos":
			if major > 0 {
				return sudo + "dnf install -y postgresql" + version + "-server"
			}
			return sudo + "dnf install -y postgresql-server"
		case "alpine":
			return sudo + "apk add postgresql" + version
		case "arch":
			return sudo + "pacman -S --noconfirm postgresql"
		case "suse", "opensuse":
			return sudo + "zypper install -y postgresql" + version + "-server"
		}
	}
	return strings.TrimSpace("see https://www.postgresql.org/download/ for Postgres " + version)
}

// osReleaseIDs are the names of the system and of those it is like.
func osReleaseIDs(release []byte) []string {
	var id, like []string
	for lines := bufio.NewScanner(bytes.NewReader(release)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		switch names := strings.Fields(strings.Trim(value, `"'`)); name {
		case "ID":
			id = names
		case "ID_LIKE":
			like = names
		}
	}
	return append(id, like...)
}
