package sidestep_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidestep-go/sidestep"
	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/lock"
)

// authority is a certificate authority of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue makes a certificate, signed by the authority or, while that has none, by
// itself.
func (a *authority) issue(t *testing.T, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// pool returns the authority as what a client trusts.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// write puts a certificate and its key into files, as redis-server wants them.
func write(t *testing.T, dir, name string, cert *x509.Certificate, key *ecdsa.PrivateKey) (certFile, keyFile string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Raw},
		keyFile:  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// Locks, lines and queues work over TLS with certificates on both sides; a server
// whose certificate is not trusted gets nothing, and a client without one nothing
// either. Each is an error that says Redis is unavailable, not that a lock is taken.
func TestTLS(t *testing.T) {
	redistest.Real(t) // skips, or fails where it is required
	dir := t.TempDir()
	ca := newAuthority(t)
	caFile, _ := write(t, dir, "ca", ca.cert, ca.key)
	cert, key := ca.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	certFile, keyFile := write(t, dir, "redis", cert, key)
	cert, key = ca.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "worker"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	mine := tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	port := strconv.Itoa(free.Addr().(*net.TCPAddr).Port)
	redistest.NewServer(t, "--bind", "127.0.0.1", "--tls-port", port,
		"--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-ca-cert-file", caFile, "--tls-auth-clients", "yes")

	client := func(cfg *tls.Config) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: addr, TLSConfig: cfg, MaxRetries: -1, DialerRetries: 1})
		t.Cleanup(func() { c.Close() })
		return c
	}
	rdb := client(&tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{mine}, MinVersion: tls.VersionTLS12})
	acq := newAcquirer(t, rdb, sidestep.Config{})
	q := sidestep.NewQueue(acq, rdb, "q", sidestep.QueueConfig{})
	ran := newRuns()
	task := sidestep.NewTask(q, "t", one("a"), ran.handler())
	s := enter(t, acq, "a")
	waited := make(chan error, 1)
	other := newAcquirer(t, rdb, sidestep.Config{}) // waits in line, on a subscription of its own
	go func() {
		waited <- other.Do(context.Background(), "a", sidestep.RetryFor(time.Minute), func(context.Context, *lock.Lock) error { return nil })
	}()
	eventually(t, "somebody in line", func() bool {
		st, err := acq.Locker().Inspect(t.Context(), "a")
		return err == nil && st.Waiters == 1
	})
	deferred(t, task, 1, sidestep.Defer(time.Minute))
	s.leave(t)
	if err := <-waited; err != nil {
		t.Errorf("Do in line over TLS = %v, want nil", err)
	}
	start(t, q)
	ran.wait(t, 1)

	for name, cfg := range map[string]*tls.Config{
		"an unknown authority":    {RootCAs: newAuthority(t).pool(), Certificates: []tls.Certificate{mine}, MinVersion: tls.VersionTLS12},
		"another name":            {RootCAs: ca.pool(), ServerName: "elsewhere", Certificates: []tls.Certificate{mine}, MinVersion: tls.VersionTLS12},
		"no client's certificate": {RootCAs: ca.pool(), MinVersion: tls.VersionTLS12},
		"no TLS":                  nil,
	} {
		err := newAcquirer(t, client(cfg), sidestep.Config{}).Do(t.Context(), "b", sidestep.Fail(), func(context.Context, *lock.Lock) error {
			t.Errorf("%s: the section ran", name)
			return nil
		})
		if !errors.Is(err, sidestep.ErrUnavailable) || errors.Is(err, sidestep.ErrLocked) {
			t.Errorf("%s: Do = %v, want ErrUnavailable", name, err)
		}
	}
}
