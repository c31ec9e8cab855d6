package doctor

import "time"

// Hasten makes a Doctor call a line stalled after two looks at once, and a
// transaction long as soon as it is open.
func (d *Doctor) Hasten() {
	d.patience, d.openFor = time.Millisecond, 0
}
