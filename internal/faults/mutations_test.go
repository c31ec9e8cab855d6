//go:build mutation

package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/faults/oracle"
)

// mutation is the product broken on purpose. The oracle must notice.
type mutation struct {
	name    string
	mood    string // the one that brings it out; "everything" would, too, in time
	changes []change
	prepare []func(*lab)
}

var mutations = []mutation{
	{
		name: "DropTheSweep", mood: "crashes",
		changes: []change{{"internal/tick/tick.go", "\t\ttimer.Reset(next)\n", "\t\t_ = next\n"}},
	},
	{
		// The key is free for the next, and then the end is committed, or not.
		name: "PromoteBeforeCommit", mood: "crashes",
		changes: []change{{
			"internal/execute/execute.go",
			"\tjob := &river.Job[queue.RunArgs]{JobRow: row}\n",
			`	job := &river.Job[queue.RunArgs]{JobRow: row}
	_ = e.db.InTx(ctx, func(tx *postgres.Tx) error {
		if err := tx.LockKeys(ctx, []string{end.key}); err != nil {
			return err
		}
		const free = "UPDATE river_job SET unique_key = NULL, args = args - 'lock_key' WHERE id = $1"
		if _, err := tx.Exec(ctx, free, row.ID); err != nil {
			return err
		}
		return e.ledger.Promote(ctx, tx, end.key)
	})
`,
		}},
	},
	{name: "NoSessionLock", mood: "psql", changes: noSessionLock},
	{
		// Nor is there the index that keeps apart what is admitted.
		name: "NoSessionLockAndNoUniqueIndex", mood: "psql", changes: noSessionLock,
		prepare: []func(*lab){withoutUniqueIndex},
	},
	{
		name: "RescueTheSameJobRow", mood: "freezes",
		changes: []change{{
			"internal/ledger/lives.go",
			"\trun := lost.Run\n\tif err := tx.DetachJob(",
			`	run := lost.Run
	if run != nil {
		const rescue = "WITH nobody AS MATERIALIZED (SELECT set_config('riverbeat.node', '', true)) " +
			"UPDATE river_job SET state = 'available', scheduled_at = now() FROM nobody WHERE id = $1"
		_, err := tx.Exec(ctx, rescue, lost.ID)
		return err
	}
	if err := tx.DetachJob(`,
		}},
	},
	{
		name: "AdvanceTheClockInItsOwnTransaction", mood: "crashes",
		changes: []change{
			{"internal/tick/tick.go", "\t\treturn tx.SetClocks(ctx, plans)\n", "\t\treturn nil\n"},
			{"internal/tick/tick.go", "\tclaimed, ticks := 0, 0\n", "\tclaimed, ticks := 0, 0\n\tvar advanced []decision\n"},
			{"internal/tick/tick.go", "\t\treturn t.settle(ctx, tx, decisions)\n\t})\n", `		advanced = decisions
		plans := map[uuid.UUID]riverbeat.Plan{}
		for _, d := range decisions {
			plans[d.clock.ScheduleID] = d.plan
		}
		return tx.SetClocks(ctx, plans)
	})
	if err == nil {
		err = t.partitions.InTx(ctx, func(tx *postgres.Tx) error { return t.settle(ctx, tx, advanced) })
	}
`},
		},
	},
	{
		// It rings now, so now is the tick.
		name: "TrustTheAlarm", mood: "everything",
		changes: []change{{
			"internal/tick/tick.go",
			"\tplan := s.Plan(recurrence, clock.Mark, clock.Now)\n",
			`	rung := clock.Now.Truncate(time.Second).Add(-time.Millisecond)
	if rung.Before(clock.Mark) {
		rung = clock.Mark
	}
	plan := s.Plan(recurrence, rung, clock.Now)
`,
		}},
	},
	{
		name: "AdmitWithoutTheKeyLock", mood: "lines",
		changes: []change{{
			"internal/ledger/ledger.go",
			"\tif err := tx.LockKeys(ctx, keys); err != nil {\n\t\treturn fmt.Errorf(\"lock %d keys",
			"\tif err := tx.LockKeys(ctx, nil); err != nil {\n\t\treturn fmt.Errorf(\"lock %d keys",
		}},
	},
	{
		// The first statement reads them, the second one hands them on.
		name: "JoinSchedulesInTheFirstStatement", mood: "edits",
		changes: []change{
			{
				"internal/postgres/internal/dbq/clocks.sql.go",
				`fresh AS (
    SELECT schedule_id, last_scheduled_for
    FROM schedule_clocks
    WHERE due_at <= statement_timestamp()
        AND due_at >= statement_timestamp() - interval '60 seconds'
        AND (SELECT id FROM ticking)
    ORDER BY due_at, schedule_id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)`,
				`fresh AS (
    SELECT schedule_id, last_scheduled_for, to_jsonb(s) AS schedule
    FROM schedule_clocks
    JOIN schedules AS s ON s.id = schedule_id
    WHERE due_at <= statement_timestamp()
        AND due_at >= statement_timestamp() - interval '60 seconds'
        AND (SELECT schedule_clocks.schedule_id IS NOT NULL FROM ticking)
    ORDER BY due_at, schedule_id
    LIMIT $1
    FOR UPDATE OF schedule_clocks SKIP LOCKED
)`,
			},
			{
				"internal/postgres/internal/dbq/clocks.sql.go",
				"statement_timestamp()::timestamptz AS now FROM fresh\nUNION ALL",
				`statement_timestamp()::timestamptz AS now
FROM fresh, (SELECT set_config('faults.schedules', coalesce(jsonb_agg(schedule), '[]')::text, true) FROM fresh) AS handed
UNION ALL`,
			},
			{
				"internal/postgres/internal/dbq/schedules.sql.go",
				"updated_at, words, tag_names, limits, alerts, shadow FROM schedules WHERE id = ANY($1::uuid[])",
				`updated_at, words, tag_names, limits, alerts, shadow FROM (
    SELECT (jsonb_populate_record(NULL::schedules, handed)).*
    FROM jsonb_array_elements(nullif(current_setting('faults.schedules', true), '')::jsonb) AS handed
    UNION ALL
    SELECT * FROM schedules WHERE coalesce(current_setting('faults.schedules', true), '') = ''
) AS schedules WHERE id = ANY($1::uuid[])`,
			},
		},
	},
}

// noSessionLock makes each key free, and each node that was not heard of gone.
var noSessionLock = []change{
	{
		"internal/postgres/session.go",
		"\treturn s.q.TryLocks(ctx, s.conn, s.executeLocks(keys))\n",
		"\t_, err := s.conn.Exec(ctx, \"SELECT\")\n\tlocked := make([]bool, len(keys))\n\tfor i := range locked {\n\t\tlocked[i] = true\n\t}\n\treturn locked, err\n",
	},
	{
		"internal/postgres/session.go",
		"\treturn tx.q.TryLockNodeShared(ctx, tx.Tx, riverbeat.AdvisoryKey(tx.schema, nodeClass, node))\n",
		"\treturn true, nil\n",
	},
}

// most is how many seeds a mutation may need.
const most = 20

// TestMutations breaks the product in one place after the other, and wants the
// oracle to notice each within so many seeds.
func TestMutations(t *testing.T) {
	t.Parallel()
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			binary, err := build(m.name, m.changes...)
			require.NoError(t, err)
			mood := slices.IndexFunc(moods, func(of mood) bool { return of.name == m.mood })
			require.GreaterOrEqual(t, mood, 0)
			seed := uint64(1)
			for moodOf(seed).name != m.mood {
				seed++
			}
			began := time.Now()
			for tried := 1; tried <= most; tried++ {
				s := runScenario(t, binary, seed, *length, m.prepare...)
				if len(s.verdict.Violations) > 0 {
					by := map[string]int{}
					for _, v := range s.verdict.Violations {
						by[v.Check]++
					}
					t.Logf("CAUGHT %s: by seed %d (%s), the %dth tried, after %s; broken promises by check: %v\n%s", m.name, seed,
						m.mood, tried, time.Since(began).Round(time.Second), by, head(story(s.ev, s.verdict), 60))
					return
				}
				seed += uint64(len(moods))
			}
			t.Errorf("%s was not noticed in %d seeds", m.name, most)
		})
	}
}

// TestExecuteLocksAlone takes away all that keeps a second job of a key from
// being made: there are some then, and the locks of the sessions still keep them
// from being executed together.
func TestExecuteLocksAlone(t *testing.T) {
	t.Parallel()
	binary, err := build("ExecuteLocksAlone", change{
		"internal/postgres/runs.go",
		"\treturn tx.q.LockKeys(ctx, tx.Tx, slices.Compact(locks))\n",
		"\t_ = slices.Compact(locks)\n\treturn nil\n",
	})
	require.NoError(t, err)
	const lines = 5
	require.Equal(t, "lines", moodOf(lines).name)
	s := runScenario(t, binary, lines, *length, withoutUniqueIndex)
	by := map[string]int{}
	for _, v := range s.verdict.Violations {
		by[v.Check]++
	}
	t.Logf("broken promises by check: %v", by)
	require.Positive(t, by[oracle.CheckKey], "no key ever had two jobs, so nothing was shown")
	require.Zero(t, by[oracle.CheckOverlap], story(s.ev, s.verdict))
}

func head(text string, lines int) string {
	all := strings.Split(text, "\n")
	if len(all) > lines {
		all = append(all[:lines], fmt.Sprintf("… and %d lines more", len(all)-lines))
	}
	return strings.Join(all, "\n")
}
