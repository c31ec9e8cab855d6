package riverbeat

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// LockKey is the key under which runs of a task with the same arguments never
// overlap: a hash of the task's name, its args and its effective parameters
// (schema defaults filled in), so that neither key order, nor white space, nor
// spelling a default out makes another key. Missing args are [], missing
// parameters {}.
func LockKey(taskName string, args, effectiveParams json.RawMessage) (string, error) {
	canonicalArgs, err := canonicalOr("[]", args)
	if err != nil {
		return "", fmt.Errorf("args: %w", err)
	}
	canonicalParams, err := canonicalOr("{}", effectiveParams)
	if err != nil {
		return "", fmt.Errorf("task_params: %w", err)
	}
	sum := digest("lock", taskName, canonicalArgs, canonicalParams)
	return hex.EncodeToString(sum[:16]), nil
}

// ChainKey is the key that makes the catch-up runs of one schedule run one
// after another when its policy, allow, gives them no lock key. No chain key
// equals a lock key.
func ChainKey(scheduleID uuid.UUID) string {
	sum := digest("chain", string(scheduleID[:]))
	return hex.EncodeToString(sum[:16])
}

// AdvisoryKey is the 64-bit number that stands for key among Postgres's
// advisory locks. Those belong to the whole database, hence the schema's name;
// class keeps apart the uses of one key ("admit", "execute", "node",
// "prune").
func AdvisoryKey(schema, class, key string) int64 {
	sum := digest("advisory", schema, class, key)
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // all 64 bits are wanted, sign included
}

// digest hashes the parts of a key. domain says what the hash is for, and each
// part is preceded by its length: ("ab", "c") and ("a", "bc") differ.
func digest(domain string, parts ...string) [sha256.Size]byte {
	text := []byte("riverbeat " + domain + "\n")
	for _, part := range parts {
		text = binary.BigEndian.AppendUint64(text, uint64(len(part)))
		text = append(text, part...)
	}
	return sha256.Sum256(text)
}

func canonicalOr(missing string, raw json.RawMessage) (string, error) {
	if isMissing(raw) {
		return missing, nil
	}
	canonical, err := CanonicalJSON(raw)
	return string(canonical), err
}
