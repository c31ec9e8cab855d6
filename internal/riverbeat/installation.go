package riverbeat

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Installation is what all nodes of one database share.
type Installation struct {
	Environment string // the label from the configuration of its first node
	PausedAt    *time.Time
	PausedBy    string // "" is unknown
	PauseReason string
	Hold        *Hold // nil: this node works
}

// Hold is why this node does nothing, and what would happen at once if it did.
type Hold struct {
	Why          string
	DueSchedules int
	Jobs         int // not finished
	WaitingRuns  int
	Next         []NextTick // the first ticks, in order
}

// NextTick is the next tick of a schedule.
type NextTick struct {
	ScheduleID   uuid.UUID
	ScheduleName string
	TaskName     string
	At           time.Time
}

// Pause is a time during which no tick fired.
type Pause struct {
	PausedAt  time.Time
	PausedBy  string // "" is unknown
	Reason    string
	ResumedAt *time.Time // nil: it lasts
	ResumedBy string
}

// Covers tells whether a time lies in the pause.
func (p *Pause) Covers(at time.Time) bool {
	return !at.Before(p.PausedAt) && (p.ResumedAt == nil || at.Before(*p.ResumedAt))
}

// Node is a process that works, or did within the last day.
type Node struct {
	ID            uuid.UUID
	Host          string
	Version       string
	TZDataVersion string
	StartedAt     time.Time
	LastSeenAt    time.Time
	Alive         bool
	Tasks         []string       // whose code it has
	Commands      []string       // that executors of the kind command can start there
	Queues        map[string]int // that it works, and the most runs at once of each
	Running       int            // jobs that it works right now
}

// MaxPauseReasonLength bounds the reason of a pause, in characters.
const MaxPauseReasonLength = 500

// ValidatePauseReason checks the reason of a pause; Invalid with the code
// "invalid_pause" if there is none: whoever finds ticks missing will ask.
func ValidatePauseReason(reason string) error {
	var broken fields
	if utf8.ValidString(reason) && strings.TrimSpace(reason) == "" {
		broken.addf("/reason", "must not be empty")
	} else {
		broken.text("/reason", reason, MaxPauseReasonLength)
	}
	return broken.err("invalid_pause", "The pause breaks a rule.")
}
