package command

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// zoneDirs are where package time looks for zones, in its order.
var zoneDirs = []string{"/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"}

// tzdataVersion says which zones this process has: the version of the machine's, or
// that of Go, whose own are in the binary.
func tzdataVersion(dirs []string) string {
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "UTC")); err != nil {
			continue
		}
		for _, name := range []string{"+VERSION", "tzdata.zi"} {
			if version := firstLine(filepath.Join(dir, name)); version != "" {
				return strings.TrimPrefix(version, "# version ")
			}
		}
		return "of the machine, unknown"
	}
	return "of " + runtime.Version()
}

func firstLine(file string) string {
	f, err := os.Open(file) //nolint:gosec // one of a few
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	s := bufio.NewScanner(f)
	s.Scan()
	return strings.TrimSpace(s.Text())
}
