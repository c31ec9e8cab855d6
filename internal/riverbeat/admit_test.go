package riverbeat

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestAdmit(t *testing.T) {
	t.Parallel()
	job, first := uuid.New(), uuid.New()
	held := func(state State) Busy { return Busy{Job: &job, JobState: state} }
	line := func(waiting int) Busy { return Busy{Job: &job, JobState: Running, First: &first, Waiting: waiting} }
	freeWithLine := Busy{First: &first, Waiting: 1}
	skipped := func(reason Reason, by *uuid.UUID) Admission {
		return Admission{State: Skipped, Reason: reason, BlockedBy: by}
	}
	waiting := func(by *uuid.UUID) Admission { return Admission{State: Waiting, BlockedBy: by} }
	queued := Admission{State: Queued}

	for _, test := range []struct {
		name    string
		policy  Policy
		trigger Trigger
		busy    Busy
		want    Admission
	}{
		{"AllowMeetsARunningOne", Allow, TriggerSchedule, held(Running), queued},
		{"SkipIsFree", Skip, TriggerSchedule, Busy{}, queued},
		{"SkipMeetsARunningOne", Skip, TriggerSchedule, held(Running), skipped(AlreadyRunning, &job)},
		{"SkipMeetsAQueuedOne", Skip, TriggerSchedule, held(Queued), skipped(AlreadyQueued, &job)},
		{"SkipMeetsOneBetweenAttempts", Skip, TriggerManual, held(Retrying), skipped(RetryPending, &job)},
		{"SkipMeetsALineWhoseKeyIsFree", Skip, TriggerSchedule, freeWithLine, skipped(AlreadyQueued, &first)},
		{"QueueIsFree", Queue, TriggerSchedule, Busy{}, queued},
		{"QueueMeetsARunningOne", Queue, TriggerSchedule, held(Running), waiting(&job)},
		{"QueueMeetsALineWhoseKeyIsFree", Queue, TriggerSchedule, freeWithLine, waiting(&first)},
		{"QueueFindsTheLastPlace", Queue, TriggerSchedule, line(1), waiting(&job)},
		{"QueueIsFull", Queue, TriggerSchedule, line(2), skipped(QueueFull, &job)},
		{"QueueIsOverfull", Queue, TriggerManual, line(3), skipped(QueueFull, &job)},
		{"CatchUpIsNotBounded", Queue, TriggerCatchUp, line(2), waiting(&job)},
		{"BackfillIsNotBounded", Queue, TriggerBackfill, line(2), waiting(&job)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const maxWaiting = 2
			require.Equal(t, test.want, Admit(test.policy, test.trigger, maxWaiting, test.busy))
		})
	}
}

func TestAdmitted_CountsForTheNextOfTheKey(t *testing.T) {
	t.Parallel()
	var busy Busy
	admit := func(policy Policy, trigger Trigger) (uuid.UUID, Admission) {
		id := uuid.New()
		a := Admit(policy, trigger, 1, busy)
		busy.Admitted(id, trigger, a)
		return id, a
	}
	first, a := admit(Queue, TriggerSchedule)
	require.Equal(t, Queued, a.State)
	second, a := admit(Queue, TriggerCatchUp)
	require.Equal(t, Admission{State: Waiting, BlockedBy: &first}, a)
	require.Equal(t, second, *busy.First)
	require.Zero(t, busy.Waiting, "catch-up does not count")
	_, a = admit(Queue, TriggerSchedule)
	require.Equal(t, Waiting, a.State)
	_, a = admit(Queue, TriggerSchedule)
	require.Equal(t, QueueFull, a.Reason)
	_, a = admit(Skip, TriggerSchedule)
	require.Equal(t, Admission{State: Skipped, Reason: AlreadyQueued, BlockedBy: &first}, a)
	require.Equal(t, second, *busy.First, "the head of the line stays")
	require.Equal(t, 1, busy.Waiting, "who was skipped does not count")
}
