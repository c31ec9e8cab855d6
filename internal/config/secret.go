package config

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
)

// maxSecretFile is how large a file with a secret may be, in bytes: more than a secret may
// have.
const maxSecretFile = 128 << 10

// redacted stands where a secret was.
const redacted = "xxxxx"

// DatabaseURL is a postgres:// URL. However it is printed, logged or marshalled,
// its password is left out; string(u) is the URL to connect with.
type DatabaseURL string

// String is the URL without its password. It does not connect.
func (u DatabaseURL) String() string {
	if u == "" {
		return ""
	}
	parsed, err := url.Parse(string(u))
	if err != nil {
		return redacted // where the password stands in it cannot be told
	}
	if parsed.User != nil {
		if _, ok := parsed.User.Password(); ok {
			parsed.User = url.UserPassword(parsed.User.Username(), redacted)
		}
	}
	if parsed.RawQuery != "" {
		pairs := strings.Split(parsed.RawQuery, "&")
		for i, pair := range pairs {
			// libpq takes password, sslpassword and the like as parameters, too.
			if key, _, ok := strings.Cut(pair, "="); ok && !isHarmless(key) {
				pairs[i] = key + "=" + redacted
			}
		}
		parsed.RawQuery = strings.Join(pairs, "&")
	}
	return parsed.String()
}

// isHarmless tells whether a parameter of a database URL may be shown. A name
// that cannot be decoded may hide anything.
func isHarmless(key string) bool {
	name, err := url.QueryUnescape(key)
	return err == nil && !strings.Contains(strings.ToLower(name), "pass")
}

// GoString is String, for %#v.
func (u DatabaseURL) GoString() string { return u.String() }

// MarshalText is String, for JSON.
func (u DatabaseURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Secret is a value that is never shown. However it is printed, logged or
// marshalled, only whether it is set can be seen; string(s) is the value.
type Secret string

// String is "xxxxx", or "" if there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// SecretSource is where the value of a secret is: one of the two.
type SecretSource struct {
	Variable string // of the environment
	File     string
}

// String is the source as the setting has it.
func (s SecretSource) String() string {
	if s.File != "" {
		return "file:" + s.File
	}
	return "env:" + s.Variable
}

// Read reads the value. What is not there is an error.
func (s SecretSource) Read() (string, error) {
	if s.File == "" {
		value, ok := os.LookupEnv(s.Variable)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set", s.Variable)
		}
		return value, nil
	}
	return readSecret(s.File)
}

// readSecret reads the value that a file holds, a line break at its end left out.
func readSecret(name string) (string, error) {
	file, err := os.Open(name) //nolint:gosec // the operator names it
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxSecretFile {
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxSecretFile)
	}
	value := strings.TrimSuffix(string(content), "\n")
	return strings.TrimSuffix(value, "\r"), nil
}
