package listq

import (
	"log/slog"
	"reflect"
	"testing"
	"time"
)

// The defaults and the limits are those that the comments of Config state.
func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	got := Config{}.withDefaults()
	want := Config{
		DeadAge: 2160 * time.Hour, Lease: 30 * time.Second, MaxDead: 10000, MaxDeliveries: 20, MaxPayload: 1048576,
		Poll: 2000 * time.Millisecond, Prefix: "sidestep:", Resend: 60 * time.Second, Wait: Wait{Timeout: time.Second},
		Logger: slog.New(slog.DiscardHandler),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	none := Config{DeadAge: -1, MaxDead: -1, MaxDeliveries: -1, MaxPayload: -1, Resend: -1}.withDefaults()
	if none.DeadAge != 0 || none.MaxDead != 0 || none.MaxDeliveries != 0 || none.MaxPayload >= 0 || none.Resend != 0 {
		t.Errorf("without limits: %+v", none)
	}
	for name, tt := range map[string]struct {
		least, less Config
	}{
		"Lease":         {Config{Lease: 100 * time.Millisecond}, Config{Lease: 100*time.Millisecond - 1}},
		"Poll":          {Config{Poll: 10 * time.Millisecond}, Config{Poll: 10*time.Millisecond - 1}},
		"Wait.Timeout":  {Config{Wait: Wait{Timeout: time.Millisecond}}, Config{Wait: Wait{Timeout: time.Millisecond - 1}}},
		"Wait.Replicas": {Config{}, Config{Wait: Wait{Replicas: -1}}},
	} {
		tt.least.withDefaults()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("less than the least %s: no panic", name)
				}
			}()
			tt.less.withDefaults()
		}()
	}
	c := ConsumeConfig{}.withDefaults(&Queue{})
	if c.DrainTimeout != 10*time.Second || c.MaxAttempts != 25 || c.Workers != 10 || c.Slots.size != 10 || c.Backoff == nil || c.Probe == nil {
		t.Errorf("ConsumeConfig: %+v", c)
	}
	if d, ok := c.Backoff.Next(1, 0); d > time.Second || !ok {
		t.Errorf("the first failure waits %v, %t", d, ok)
	}
	c = ConsumeConfig{DrainTimeout: -1, MaxAttempts: -1, Workers: 1}.withDefaults(&Queue{})
	if c.DrainTimeout != 0 || c.MaxAttempts != 0 || c.Slots.size != 1 {
		t.Errorf("ConsumeConfig without limits: %+v", c)
	}
}
