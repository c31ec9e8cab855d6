// Package statement executes definitions of kind sql: one statement on a connection of
// its own, which is closed after it, by a login that can do little.
//
// The statement has the transaction that Postgres gives a single one, so that VACUUM
// works, too. It is committed when all of its rows are read: what is refused on the way,
// or cancelled, is rolled back.
package statement

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	neturl "net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"riverbeat/internal/execute/secret"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

const (
	// maxMessage bounds what Postgres sends at once, such as a row: so much memory a run
	// takes at most. A row may have 1 GB.
	maxMessage = 16 << 20
	// maxNotices is how many notices are logged, and maxText how much is kept of one, and
	// of each part of an error.
	maxNotices = 100
	maxText    = 1 << 10

	prepared = "riverbeat" // the statement's name in its session
)

// Config is what statements have to know of Riverbeat.
type Config struct {
	// Schema has Riverbeat's tables: who may write them executes no statement.
	Schema string
}

// Result is what is kept of a statement.
type Result struct {
	Command  string `json:"command"`   // such as INSERT
	RowCount int64  `json:"row_count"` // affected, or returned
	// Rows are the first rows; nil of a statement that returns none.
	Rows      []json.RawMessage `json:"rows,omitzero"`
	Truncated bool              `json:"truncated,omitzero"` // there are more rows
}

// New makes the executor of kind sql. Its code ends with an error that is Final where the
// same statement would fail in the same way again.
func New(cfg Config) func(settings riverbeat.Executor) task.Code {
	return func(settings riverbeat.Executor) task.Code {
		return func(ctx context.Context, run *task.Run) (any, error) {
			result, err := cfg.execute(ctx, settings, run)
			if err != nil {
				return nil, explain(ctx, err)
			}
			return result, nil
		}
	}
}

func (c Config) execute(ctx context.Context, settings riverbeat.Executor, run *task.Run) (*Result, error) {
	parsed, err := riverbeat.ParseStatement(settings.Statement)
	if err != nil {
		return nil, task.Final(fmt.Errorf("the statement %w", err))
	}
	s, err := open(ctx, settings, run)
	if err != nil {
		return nil, err
	}
	defer s.end(ctx)
	if err := s.checkLogin(ctx, c.Schema); err != nil {
		return nil, err
	}
	described, err := s.conn.Prepare(ctx, prepared, parsed.SQL, nil)
	if err != nil {
		return nil, err
	}
	values, err := s.bind(ctx, parsed.Parameters, described.ParamOIDs, run)
	if err != nil {
		return nil, err
	}
	return s.execute(ctx, values, newRows(described.Fields))
}

// config is how a session is opened. The settings of the statement's own URL stand, but
// for those that are set here.
func config(ctx context.Context, settings riverbeat.Executor, run *task.Run) (*pgconn.Config, error) {
	const wrong = "the database must be a URL such as postgres://user:password@host/name, special characters in it percent-encoded (@ is %40, / is %2F)"
	url := settings.Database.Literal
	scheme, rest, _ := strings.Cut(url, "://")
	// What stands before the last @ is user and password. Where the host begins earlier, a
	// part of a password would be taken for a host or a name, which errors show.
	at := strings.LastIndexByte(rest, '@')
	cfg, err := pgconn.ParseConfig(url)
	if err != nil || scheme != "postgres" && scheme != "postgresql" || at <= 0 || rest[0] == ':' || strings.ContainsAny(rest[:at], "/?#") {
		return nil, task.Final(errors.New(wrong)) // that of pgconn may have the password
	}
	// What the URL does not say, pgconn takes from the environment and from files, which are
	// the node's own.
	parsed, err := neturl.Parse(url)
	if err != nil {
		return nil, task.Final(errors.New(wrong))
	}
	password, _ := parsed.User.Password()
	cfg.Password = cmp.Or(parsed.Query().Get("password"), password)
	if !parsed.Query().Has("options") {
		delete(cfg.RuntimeParams, "options")
	}
	cfg.ConnectTimeout = connectWithin
	cfg.MaxProtocolMessageBodyLen = maxMessage
	own := map[string]string{
		"application_name": "riverbeat run " + run.ID.String(),
		// By startup parameters, they win over what the URL's options say, and over what role
		// and database have. One that the URL makes somebody else could become itself again.
		"session_authorization":               cfg.User,
		"statement_timeout":                   "0",
		"lock_timeout":                        milliseconds(cmp.Or(settings.LockTimeout, riverbeat.DefaultLockTimeout)),
		"idle_in_transaction_session_timeout": "10s",
		// A statement whose node is gone ends.
		"client_connection_check_interval": "1s",
		"tcp_keepalives_idle":              "30s",
		"tcp_keepalives_interval":          "10s",
		"tcp_keepalives_count":             "3",
		// Of values and texts.
		"client_encoding": "UTF8", "datestyle": "ISO", "intervalstyle": "iso_8601", "timezone": "UTC",
		"bytea_output": "hex", "extra_float_digits": "1", "standard_conforming_strings": "on",
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		// A little earlier, so that it is the server that says what has ended it.
		own["statement_timeout"] = milliseconds(left - min(left/10, time.Second))
	}
	maps.DeleteFunc(cfg.RuntimeParams, func(name, _ string) bool {
		_, ok := own[strings.ToLower(name)]
		return ok
	})
	maps.Copy(cfg.RuntimeParams, own)
	left := maxNotices
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if left--; left > 0 {
			run.Logger.Log(ctx, level(n.SeverityUnlocalized), short(ctx, n.Message), "sqlstate", n.Code)
		} else if left == 0 {
			run.Logger.WarnContext(ctx, "the statement has more notices, which are not kept")
		}
	}
	return cfg, nil
}

func level(severity string) slog.Level {
	switch {
	case severity == "WARNING":
		return slog.LevelWarn
	case strings.HasPrefix(severity, "DEBUG"):
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// milliseconds is how Postgres is told of a timeout; 0 would be none.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(min(max(d.Milliseconds(), 1), math.MaxInt32), 10)
}

// checkLogin refuses a login that could do more than change data of its own: leave the
// database, for files and programs of the server, or raise its own privileges, or write
// Riverbeat's tables. It is asked what it could become by SET ROLE, not what it is.
func (s *session) checkLogin(ctx context.Context, schema string) error {
	// Nothing in it is found by search_path, which the login's owner sets.
	const query = `
		SELECT
			rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
			(
				SELECT pg_catalog.min(t.relname::pg_catalog.text)
				FROM pg_catalog.pg_class AS t
				JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.relnamespace
				WHERE n.nspname OPERATOR(pg_catalog.=) $1
					AND t.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}')
					AND (
						pg_catalog.has_table_privilege(r.oid, t.oid, 'DELETE, TRUNCATE')
						OR pg_catalog.has_any_column_privilege(r.oid, t.oid, 'INSERT, UPDATE')
					)
			),
			pg_catalog.pg_backend_pid(),
			(SELECT backend_start FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()))
		FROM pg_catalog.pg_roles AS r
		WHERE pg_catalog.pg_has_role(session_user, oid, 'MEMBER')`
	attributes := []string{"SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"}
	tooMuch := []string{"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files", "pg_signal_backend"}
	roles, err := s.query(ctx, query, schema)
	if err != nil {
		return err
	}
	var has []string
	for _, role := range roles {
		if name := string(role[0]); slices.Contains(tooMuch, name) {
			has = append(has, name)
		}
		for i, attribute := range attributes {
			if string(role[1+i]) == "t" {
				has = append(has, attribute)
			}
		}
		if table := string(role[6]); table != "" {
			has = append(has, "write access to tables of Riverbeat, such as "+table)
		}
		s.pid, s.began = string(role[7]), string(role[8])
	}
	if slices.Contains(has, attributes[0]) { // and so it has all others
		has = attributes[:1]
	}
	slices.Sort(has)
	if has = slices.Compact(has); len(has) > 0 {
		return task.Final(fmt.Errorf(
			"the login %q may execute no statements, for it has, or can become a role that has: %s; use a login of its own for it that has only the privileges which the statement needs",
			s.cfg.User, strings.Join(has, ", ")))
	}
	return nil
}

// execute executes what was prepared. It commits when it has read all rows.
func (s *session) execute(ctx context.Context, values [][]byte, kept *rows) (*Result, error) {
	s.settled = false
	f := s.conn.Frontend()
	f.SendBind(&pgproto3.Bind{PreparedStatement: prepared, Parameters: values})
	f.SendExecute(&pgproto3.Execute{})
	f.Send(&pgproto3.Flush{})
	if err := f.Flush(); err != nil {
		return nil, err
	}
	for tag := ""; ; {
		message, err := s.conn.ReceiveMessage(ctx)
		if err != nil {
			_, s.settled = errors.AsType[*pgconn.PgError](err) // fatal, to the session
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			kept.add(m.Values)
		case *pgproto3.CopyInResponse, *pgproto3.CopyOutResponse, *pgproto3.CopyBothResponse:
			return nil, task.Final(errors.New("the statement copies from STDIN or to STDOUT, and there is nobody at the other end; use INSERT or SELECT"))
		case *pgproto3.EmptyQueryResponse:
			s.settled = true
			return nil, task.Final(errors.New("the statement is empty"))
		case *pgproto3.ErrorResponse:
			s.settled = true
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CommandComplete:
			tag = string(m.CommandTag)
			f.SendSync(&pgproto3.Sync{})
			if err := f.Flush(); err != nil {
				return nil, err
			}
		case *pgproto3.ReadyForQuery:
			s.settled = true
			return kept.result(tag), nil
		}
	}
}

// explain makes of what has ended an attempt what is said of it. Only an error that would
// come again the same is Final: SQLSTATE tells.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("the statement was stopped: %w", cause)
	}
	if tooLong, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); ok {
		return task.Final(fmt.Errorf("the statement gives a row or a message of %d bytes, more than the %d that are read", tooLong.ActualBodyLen, tooLong.MaxExpectedBodyLen))
	}
	said, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if failed, ok := errors.AsType[*pgconn.ConnectError](err); ok {
			return errors.New(short(ctx, failed.Error())) // it has the password within
		}
		return err
	}
	text := short(ctx, said.Message) + " (SQLSTATE " + said.Code + ")"
	if said.Detail != "" {
		text += "; detail: " + short(ctx, said.Detail)
	}
	if said.Hint != "" {
		text += "; hint: " + short(ctx, said.Hint)
	}
	if err = errors.New(text); passes(said.Code) {
		return err
	}
	return task.Final(err)
}

// passes tells whether an error may be gone at the next attempt.
func passes(sqlState string) bool {
	switch sqlState[:min(2, len(sqlState))] {
	case "08", "53", "58": // connection, resources, input and output
		return true
	}
	return slices.Contains([]string{
		"40001", "40P01", // serialization, deadlock
		"55P03",                            // lock_timeout
		"57014", "57P01", "57P02", "57P03", // cancelled or timed out; the server stops, or starts
		"XX000",
	}, sqlState)
}

// short is the beginning of a text, without secrets.
func short(ctx context.Context, text string) string {
	text = strings.ToValidUTF8(secret.From(ctx).Text(text), "\uFFFD")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + " …"
	}
	return text
}
