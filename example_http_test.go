package sidestep_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/lock"
	"github.com/sidestep-go/sidestep/sidesteptest"
)

// An HTTP handler asks three questions: did it fail, was it deferred, or is it
// done? A held lock is 409 with Retry-After for those who want to know at once,
// and 202 with a receipt for those who can wait. If the task's handler takes other
// locks inside, a LockedError may be its own: compare held.Key, which is prefix and
// name, then.
func Example_http() {
	srv := sidesteptest.New()
	defer srv.Close()
	rdb := srv.Client()
	defer rdb.Close()
	locker := lock.New(rdb, lock.Config{TTL: 10 * time.Second})
	defer locker.Close()
	acq := sidestep.New(locker, sidestep.Config{})
	queue := sidestep.NewQueue(acq, rdb, "orders", sidestep.QueueConfig{})
	charge := sidestep.NewTask(queue, "charge",
		func(o Order) string { return "account:" + o.Account },
		func(context.Context, *lock.Lock, Order) error { return nil })

	handler := func(w http.ResponseWriter, r *http.Request) {
		policy := sidestep.Policy(sidestep.Fail())
		if r.Header.Get("Prefer") == "respond-async" {
			policy = sidestep.Defer(5 * time.Second)
		}
		out, err := charge.Do(r.Context(), Order{Number: 7, Account: "ann"}, policy)
		var held *sidestep.LockedError
		switch {
		case errors.As(err, &held):
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(held.RetryAfter.Seconds()))))
			http.Error(w, "somebody works on this account", http.StatusConflict)
		case err != nil:
			http.Error(w, "try again", http.StatusServiceUnavailable)
		case out.Deferred != nil:
			w.Header().Set("Location", "/requests/"+out.Deferred.ID)
			w.WriteHeader(http.StatusAccepted)
		default:
			w.WriteHeader(http.StatusOK)
		}
	}
	call := func(prefer string) {
		r := httptest.NewRequest(http.MethodPost, "/charge", nil)
		r.Header.Set("Prefer", prefer)
		w := httptest.NewRecorder()
		handler(w, r)
		fmt.Println(w.Code, "Retry-After:", w.Header().Get("Retry-After"), "- receipt:", w.Header().Get("Location") != "")
	}

	call("") // the lock is free
	busy, err := locker.TryAcquire(context.Background(), "account:ann")
	if err != nil {
		panic(err)
	}
	call("")
	call("respond-async")
	if err := busy.Release(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// 200 Retry-After:  - receipt: false
	// 409 Retry-After: 10 - receipt: false
	// 202 Retry-After:  - receipt: true
}
