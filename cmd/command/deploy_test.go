package command

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"riverbeat/internal/config"
)

// The tests of this file hold that what deploys the program calls it as it is: each
// command, flag, setting and path.

// shutdown is how long a node may take to stop: its runs have the grace, and are then
// cancelled and have ten seconds more.
func shutdown(cfg config.Config) time.Duration { return cfg.ShutdownGrace + 10*time.Second }

// fromTop reads a file by its path from the top of the repository.
func fromTop(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", path))
	require.NoError(t, err)
	return string(content)
}

// accepted is what the program makes of a call with the settings of an environment. The
// test fails if it does not know the command, a flag or a setting.
func accepted(t *testing.T, args []string, environment map[string]string) config.Config {
	t.Helper()
	c, rest, err := newRoot(nil).Find(args)
	require.NoError(t, err, args)
	require.False(t, c.HasSubCommands(), "%s is no command", args)
	require.NoError(t, c.ParseFlags(rest), args)
	require.NoError(t, c.ValidateArgs(c.Flags().Args()), args)
	var environ []string
	for name, value := range environment {
		environ = append(environ, name+"="+value)
	}
	r, err := config.Load(environ, "", settingFlags(c))
	require.NoError(t, err)
	require.Empty(t, r.Unknown)
	return r.Config
}

// jsonArray reads the exec form of an instruction.
func jsonArray(t *testing.T, text string) []string {
	t.Helper()
	var words []string
	require.NoError(t, json.Unmarshal([]byte(text), &words), text)
	return words
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	var instructions [][2]string
	for line := range strings.Lines(fromTop(t, "Dockerfile")) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		instructions = append(instructions, [2]string{name, rest})
	}
	last := map[string]string{} // of the last stage; each stands there once
	var build string
	for _, i := range instructions {
		if i[0] == "FROM" {
			last = map[string]string{}
		}
		require.NotContains(t, last, i[0])
		if last[i[0]] = i[1]; i[0] == "RUN" && strings.Contains(i[1], "go build") {
			build = i[1]
		}
		if i[0] == "RUN" || i[0] == "COPY" {
			delete(last, i[0]) // of the build there are more
		}
	}

	module := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(fromTop(t, "go.mod"))[1]
	require.Contains(t, instructions, [2]string{"FROM", "golang:" + module + "-bookworm AS build"})
	require.Regexp(t, `^CGO_ENABLED=0 go build .* -o /riverbeat \./cmd/riverbeat$`, build, "static: the image below has no C library")
	require.Contains(t, build, "-X riverbeat/cmd/command.version=${VERSION}")
	require.Equal(t, "gcr.io/distroless/static-debian12:nonroot", last["FROM"])
	require.Contains(t, instructions, [2]string{"COPY", "--from=build /riverbeat /riverbeat"})
	require.Equal(t, "65532:65532", last["USER"], "a number: Kubernetes cannot tell of a name that it is not root")

	name, value, _ := strings.Cut(last["ENV"], "=")
	environment := map[string]string{name: value}
	require.Equal(t, []string{"/riverbeat"}, jsonArray(t, last["ENTRYPOINT"]))
	cfg := accepted(t, jsonArray(t, last["CMD"]), environment)
	_, port, err := net.SplitHostPort(cfg.Listen)
	require.NoError(t, err)
	require.Equal(t, last["EXPOSE"], port)
	check := regexp.MustCompile(`--timeout=(\S+) .*CMD (.*)`).FindStringSubmatch(last["HEALTHCHECK"])
	timeout, err := time.ParseDuration(check[1])
	require.NoError(t, err)
	require.Greater(t, timeout, healthWait)
	words := jsonArray(t, check[2])
	require.Equal(t, "/riverbeat", words[0])
	require.Equal(t, cfg.Listen, accepted(t, words[1:], environment).Listen)
}

// composeFile is what we use of the format; a word that is not here fails the test.
type composeFile struct {
	Services map[string]composeService
	Volumes  map[string]any
	Common   any `json:"x-riverbeat"`
	Node     any `json:"x-node"`
}

type composeService struct {
	Image           string
	Build           string
	Environment     map[string]string
	Command         []string
	Ports           []string
	Volumes         []string
	Restart         string
	StopGracePeriod string                                `json:"stop_grace_period"`
	ReadOnly        bool                                  `json:"read_only"`
	CapDrop         []string                              `json:"cap_drop"`
	SecurityOpt     []string                              `json:"security_opt"`
	DependsOn       map[string]struct{ Condition string } `json:"depends_on"`
	Healthcheck     struct {
		Test        []string
		Interval    string
		Timeout     string
		Retries     int
		StartPeriod string `json:"start_period"`
		Disable     bool
	}
}

func TestCompose(t *testing.T) {
	t.Parallel()
	variable := regexp.MustCompile(`\$\{(\w+):-([^}]*)\}`)
	file := fromTop(t, "docker-compose.yml")
	page := fromTop(t, "docs/deployment.md")
	for _, used := range variable.FindAllStringSubmatch(file, -1) {
		require.Contains(t, page, used[1]+"=")
	}
	for name, environment := range map[string]map[string]string{
		"AsItIs":     {},
		"Production": {"RIVERBEAT_INSECURE_NO_AUTH": "false", "RIVERBEAT_ADMIN_KEY": "0123456789abcdef", "POSTGRES_PASSWORD": "0123456789abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := variable.ReplaceAllStringFunc(file, func(used string) string {
				m := variable.FindStringSubmatch(used)
				if value := environment[m[1]]; value != "" {
					return value
				}
				return m[2]
			})
			// In it, environment variables are texts, whatever they look like.
			text = regexp.MustCompile(`(?m)^(    RIVERBEAT_\w+: )(\w*)$`).ReplaceAllString(text, `$1"$2"`)
			var compose composeFile
			require.NoError(t, yaml.UnmarshalStrict([]byte(text), &compose))
			nodes := 0
			for name, s := range compose.Services {
				for other, condition := range s.DependsOn {
					require.Contains(t, compose.Services, other)
					if condition.Condition == "service_healthy" {
						require.NotEmpty(t, compose.Services[other].Healthcheck.Test, name)
					}
				}
				for _, port := range s.Ports {
					require.Regexp(t, `^127\.0\.0\.1:\d+:8080$`, port, name)
				}
				if s.Image != "riverbeat" {
					continue
				}
				cfg := accepted(t, s.Command, s.Environment)
				require.True(t, s.ReadOnly)
				require.Equal(t, []string{"ALL"}, s.CapDrop)
				require.Equal(t, environment["RIVERBEAT_INSECURE_NO_AUTH"] == "", cfg.InsecureNoAuth)
				database := compose.Services["postgres"].Environment
				require.Equal(t, "postgres://"+database["POSTGRES_USER"]+":"+database["POSTGRES_PASSWORD"]+"@postgres:5432/"+database["POSTGRES_DB"]+"?sslmode=disable", string(cfg.DatabaseURL))
				if s.Command[0] != "serve" {
					continue
				}
				nodes++
				require.Equal(t, "service_completed_successfully", s.DependsOn["migrate"].Condition)
				stop, err := time.ParseDuration(s.StopGracePeriod)
				require.NoError(t, err)
				require.Greater(t, stop, shutdown(cfg))
				require.Equal(t, []string{"CMD", "/riverbeat"}, s.Healthcheck.Test[:2])
				accepted(t, s.Healthcheck.Test[2:], s.Environment)
			}
			require.Equal(t, 2, nodes)
		})
	}
}

func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is no systemd here")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	require.NoError(t, err, "run deploy/install-deps.sh systemd")
	program, err := os.Executable() // anything that is there
	require.NoError(t, err)
	settings := filepath.Join("..", "..", "deploy", "systemd", "riverbeat.env")
	r, err := config.Load(nil, settings, nil)
	require.NoError(t, err)
	require.Empty(t, r.Warnings)

	page := fromTop(t, "docs/deployment.md")
	for name, exposure := range map[string]string{"riverbeat.service": "15", "riverbeat-migrate.service": "30"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const installed = "/usr/local/bin/riverbeat"
			text := fromTop(t, "deploy/systemd/"+name)
			unit := filepath.Join(t.TempDir(), name)
			require.NoError(t, os.WriteFile(unit, []byte(strings.ReplaceAll(text, installed, program)), 0o600))
			// A word that it does not know is only said.
			out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput()
			require.NoError(t, err, string(out))
			require.Empty(t, string(out))
			out, err = exec.CommandContext(t.Context(), analyze, "security", "--no-pager", "--offline=true", "--threshold="+exposure, unit).CombinedOutput()
			require.NoError(t, err, string(out))

			options := map[string][]string{}
			for _, m := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(text, -1) {
				options[m[1]] = append(options[m[1]], m[2])
			}
			credentials := map[string]bool{}
			for _, credential := range options["LoadCredential"] {
				id, file, _ := strings.Cut(credential, ":")
				credentials[id] = true
				require.Contains(t, page, file)
			}
			environment := map[string]string{}
			for _, variable := range options["Environment"] {
				name, file, _ := strings.Cut(variable, "=%d/")
				require.True(t, credentials[file], variable)
				if name == "RIVERBEAT_CONFIG" {
					environment[name] = settings
				} else {
					environment[name] = written(t, file, "postgres://h/d\n")
				}
			}
			for _, line := range append(options["ExecStart"], options["ExecStartPre"]...) {
				words := strings.Fields(line)
				require.Equal(t, installed, words[0])
				cfg := accepted(t, words[1:], environment)
				require.NotEmpty(t, cfg.DatabaseURL)
				if words[1] == "serve" {
					stop, err := time.ParseDuration(options["TimeoutStopSec"][0] + "s")
					require.NoError(t, err)
					require.Greater(t, stop, shutdown(cfg))
				}
			}
		})
	}
}
