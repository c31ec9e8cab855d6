package command

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTZDataVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	require.Regexp(t, `^of go1\.`, tzdataVersion([]string{dir}), "no zones are there")
	write("UTC", "")
	require.Equal(t, "of the machine, unknown", tzdataVersion([]string{filepath.Join(dir, "none"), dir}))
	write("tzdata.zi", "# version 2025b\n# more\n")
	require.Equal(t, "2025b", tzdataVersion([]string{dir}))
	write("+VERSION", "2026a\n")
	require.Equal(t, "2026a", tzdataVersion([]string{dir}))
}
