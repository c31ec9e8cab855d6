package localpg

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeInstall makes binaries of which postgres tells only its version.
func fakeInstall(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	return dir
}

func TestFind(t *testing.T) {
	t.Parallel()
	old := fakeInstall(t, "14.20")
	minor := fakeInstall(t, "16.9 (Debian 16.9-1)")
	later := fakeInstall(t, "16.11 (Homebrew)")
	beta := fakeInstall(t, "19beta2")
	broken := fakeInstall(t, "16.1")
	require.NoError(t, os.Remove(filepath.Join(broken, "initdb")))
	linked := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(old, "postgres"), filepath.Join(linked, "postgres")))

	all := find(t.Context(), []string{"/nonexistent", linked, minor, broken, beta, later, old})
	var versions []string
	for _, i := range all {
		versions = append(versions, i.version)
	}
	require.Equal(t, []string{"19beta2", "16.11", "16.9", "14.20"}, versions)

	newest, err := all.newest()
	require.NoError(t, err)
	require.Equal(t, 19, newest.major)
	fitting, err := all.forCluster("/data", 16)
	require.NoError(t, err)
	require.Equal(t, "16.11", fitting.version)
	_, err = all.forCluster("/data", 14)
	require.ErrorContains(t, err, "needs 15 or newer")
	_, err = all[3:].newest()
	require.ErrorContains(t, err, "the newest Postgres here is 14.20")
}

func TestInstallCommand(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		goos, release string
		major         int
		root          bool
		want          string
	}{
		{"linux", "ID=debian\n", 0, true, "apt-get install -y postgresql"},
		{"linux", "ID=debian\n", 16, false, "sudo apt-get install -y postgresql-16"},
		{"linux", "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", 0, false, "sudo apt-get install -y postgresql"},
		{"linux", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", 0, true, "dnf install -y postgresql-server"},
		{"linux", "ID=fedora\n", 16, true, "dnf install -y postgresql16-server"},
		{"linux", "ID=alpine\n", 0, true, "apk add postgresql"},
		{"linux", "ID=arch\n", 0, true, "pacman -S --noconfirm postgresql"},
		{"linux", "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", 0, true, "zypper install -y postgresql-server"},
		{"linux", "", 0, true, "see https://www.postgresql.org/download/ for Postgres"},
		{"darwin", "", 0, false, "brew install postgresql@17"},
		{"darwin", "", 16, false, "brew install postgresql@16"},
	} {
		require.Equal(t, test.want, installCommandFor(test.goos, osReleaseIDs([]byte(test.release)), test.major, test.root))
	}
}
