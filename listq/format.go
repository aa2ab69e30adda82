package listq

import "fmt"

// String names the delivery by its request. Like GoString, it keeps the payload
// and the lease's token out of logs and errors.
func (d *Delivery) String() string {
	if d == nil {
		return "listq.Delivery(nil)"
	}
	return fmt.Sprintf("listq.Delivery(%q, task %q, lock %q, deliveries %d)", d.ID, d.Task, d.Lock, d.Deliveries)
}

// GoString is String.
func (d *Delivery) GoString() string { return d.String() }
