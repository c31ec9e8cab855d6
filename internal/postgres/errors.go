package postgres

import (
	"errors"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"riverbeat/internal/riverbeat"
)

// sealed is the constraint that a run of a week breaks that is on its way out.
const sealed = "runs_sealed"

// byConstraint says what a violated constraint means to a caller. The other
// constraints are held by riverbeat's own rules first; one of them violated is
// a fault of ours.
var byConstraint = map[string]*riverbeat.Error{
	"task_definitions_task_name_key": {
		Kind: riverbeat.Conflict, Code: "task_definition_exists",
		Detail: "A definition of this task exists already.",
	},
	"runs_tick_key": {
		Kind: riverbeat.Conflict, Code: "tick_decided",
		Detail: "This tick of the schedule was decided already.",
	},
	sealed: {
		Kind: riverbeat.Conflict, Code: sealed,
		Detail: "The runs of this week are about to be dropped, or are detached: none can begin there.",
	},
}

// partitionSuffix is how create_runs_partition names what belongs to a
// partition: runs_p20261123_tick_key is the runs_tick_key of a week.
var partitionSuffix = regexp.MustCompile(`^runs_p\d{8}_`)

// translate turns an error of Postgres into one that a caller can act on; all
// others stay as they are.
func translate(err error) error {
	if err == nil || riverbeat.KindOf(err) != riverbeat.Internal {
		return err
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if ok && pgErr.Code == "08P01" && strings.Contains(pgErr.Message, "startup parameter") {
		return pooled(err) // PgBouncer's words
	}
	if _, connecting := errors.AsType[*pgconn.ConnectError](err); connecting {
		return unavailable(err)
	}
	if !ok {
		return err
	}
	if known, ok := byConstraint[partitionSuffix.ReplaceAllString(pgErr.ConstraintName, "runs_")]; ok {
		e := *known
		e.Cause = err
		return &e
	}
	switch {
	case strings.HasPrefix(pgErr.Code, "08"), strings.HasPrefix(pgErr.Code, "57P0"), pgErr.Code == "53300":
		return unavailable(err)
	}
	return err
}

// pooled is the error of a pooler that does not keep sessions.
func pooled(cause error) error {
	return &riverbeat.Error{
		Kind: riverbeat.Unavailable, Code: "transaction_pooler",
		Detail: "The database answers through a connection pooler that does not keep sessions, by which nodes are known to live. " +
			"Let DATABASE_URL name Postgres itself, or a pooler of sessions that passes on every startup parameter.",
		Cause: cause,
	}
}

func unavailable(cause error) error {
	return &riverbeat.Error{
		Kind: riverbeat.Unavailable, Code: "database_unavailable",
		Detail: "The database does not answer. Try again in a moment.", Cause: cause,
	}
}

// IsRowFault tells whether err lies in the data of a row (SQLSTATE class 22 or
// 23) and not in the state of the database: only then the row's schedule is to
// blame.
func IsRowFault(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	// A row that finds no partition is 23514 too, without a constraint's name.
	if pgErr.Code == "23514" && pgErr.ConstraintName == "" {
		return false
	}
	return strings.HasPrefix(pgErr.Code, "22") || strings.HasPrefix(pgErr.Code, "23")
}

// IsMissingPartition tells whether a run found no partition for its time.
func IsMissingPartition(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "23514" && pgErr.ConstraintName == ""
}

// IsSealed tells whether a run was refused because its week is about to be dropped, or is
// detached.
func IsSealed(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.ConstraintName == sealed
}

// IsTimeout tells whether Postgres ended a statement because it took, or
// waited, too long.
func IsTimeout(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "57014" || pgErr.Code == "55P03")
}
