import { type Agent, Cost, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type {
  VdeviceAllocReply,
  VdeviceAllocRequest,
  VeventqAllocReply,
  VeventqAllocRequest,
  ViommuAllocReply,
  ViommuAllocRequest,
} from './ioctl-request.ts';
import { checkFlags, type IommufdContext } from './iommufd-context.ts';
import { VeventqObject } from './veventq-object.ts';
import { VdeviceObject, ViommuObject } from './viommu-object.ts';

/** Most events of a VEVENTQ. */
const MOST_EVENTS = 2 ** 19;

/** IOMMU_VIOMMU_ALLOC. @throws IommufdError EOPNOTSUPP, ENOENT, EINVAL */
export function* allocateViommu(
  context: IommufdContext,
  agent: Agent,
  { flags, type, devId, hwptId }: ViommuAllocRequest,
): Task<ViommuAllocReply> {
  context.since73('IOMMU_VIOMMU_ALLOC');
  checkFlags(flags, 0);
  checkType(type);
  yield agent.spends('allocate viommu', Cost.lock);
  const { table } = context;
  const { device } = table.peek(context.get(devId, 'DEVICE'));
  if (device.viommu?.type !== type)
    throw new IommufdError('EOPNOTSUPP', `type: ${device.name}'s driver has no VIOMMU of type ${type}`);
  const hwpt = table.peek(context.get(hwptId, 'HWPT_PAGING'));
  if (!hwpt.nestParent) throw new IommufdError('EINVAL', `hwpt_id: ${hwptId} is not a nest parent`);
  const viommu = new ViommuObject({ hwpt, unit: device.unit, driver: device.viommu });
  return { outViommuId: table.finalize(table.add(viommu)).id };
}

/** IOMMU_VDEVICE_ALLOC. @throws IommufdError ENOENT, EINVAL, EEXIST */
export function* allocateVdevice(
  context: IommufdContext,
  agent: Agent,
  { viommuId, devId, virtId }: VdeviceAllocRequest,
): Task<VdeviceAllocReply> {
  context.since73('IOMMU_VDEVICE_ALLOC');
  yield agent.spends('allocate vdevice', Cost.lock);
  const { table } = context;
  const viommu = table.peek(context.get(viommuId, 'VIOMMU'));
  const device = table.peek(context.get(devId, 'DEVICE'));
  if (viommu.unit !== device.device.unit)
    throw new IommufdError('EINVAL', `dev_id: ${device.device.name} is not behind the IOMMU of VIOMMU ${viommuId}`);
  if (device.isGoing) throw new IommufdError('ENOENT', `dev_id: ${device.device.name} is being unbound`);
  if (device.vdevice) throw new IommufdError('EEXIST', `dev_id: ${device.device.name} has a vdevice already`);
  if (viommu.vdevices.has(virtId)) throw new IommufdError('EEXIST', `virt_id: 0x${virtId.toString(16)} is taken`);
  return { outVdeviceId: table.finalize(table.add(new VdeviceObject({ viommu, device, virtId }))).id };
}

/** IOMMU_VEVENTQ_ALLOC. @throws IommufdError EOPNOTSUPP, EINVAL, ENOENT, EEXIST */
export function* allocateVeventq(
  context: IommufdContext,
  agent: Agent,
  { flags, viommuId, type, veventqDepth }: VeventqAllocRequest,
): Task<VeventqAllocReply> {
  context.since73('IOMMU_VEVENTQ_ALLOC');
  checkFlags(flags, 0);
  checkType(type);
  if (veventqDepth === 0 || veventqDepth > MOST_EVENTS)
    throw new IommufdError('EINVAL', `veventq_depth: ${veventqDepth} is not in 1..${MOST_EVENTS}`);
  yield agent.spends('allocate vevent queue', Cost.lock);
  const { table } = context;
  const viommu = table.peek(context.get(viommuId, 'VIOMMU'));
  if (viommu.queues.has(type))
    throw new IommufdError('EEXIST', `type: VIOMMU ${viommuId} has a queue of type ${type} already`);
  const queue = table.finalize(table.add(new VeventqObject(viommu, type, veventqDepth)));
  return { outVeventqId: queue.id, outVeventqFile: queue };
}

function checkType(type: number): void {
  if (type === 0) throw new IommufdError('EOPNOTSUPP', 'type: 0 (DEFAULT) is none');
}
